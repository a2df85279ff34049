package main

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// A sample file's bytes depend on the agency's id and the number of bets alone: on every
// platform, in every version. So nothing here may change that moves a draw or a byte: not the
// order of the draws in appendRow, not the lists of names or their order, not the generator.
// TestWriteSampleGolden holds all of it.

const (
	sampleFlushBytes = 64 << 10 // one write to the output holds about this much
	sampleRowBytes   = 64       // no row is longer: 21 bytes of first names, 10 of last name, 28 of the rest

	sampleFirstDocument = 20_000_000 // documents are drawn from here…
	sampleDocuments     = 20_000_000 // …this many: all have 8 digits, as in the real files
	sampleFirstYear     = 1980       // birthdates are drawn from this year…
	sampleYears         = 26         // …to 2005
	sampleNumbers       = 10_000     // numbers 0 to 9999: one in 10,000 is not valid, as in the real files
	sampleTwoNames      = 72         // per cent of the people with two first names
)

// sampleMen, sampleWomen and sampleLast are the names that people in a sample file have, each
// as likely as the next. Their lengths keep the mean row within 1 % of the real files' 46.5
// bytes.
var sampleMen = [...]string{
	"Agustín", "Alejandro", "Álvaro", "Andrés", "Ángel", "Ariel", "Bautista", "Benjamín", "Bruno", "Carlos", "César",
	"Cristian", "Damián", "Daniel", "David", "Diego", "Emanuel", "Ernesto", "Esteban", "Ezequiel", "Facundo",
	"Federico", "Felipe", "Fernando", "Franco", "Gabriel", "Gastón", "Gonzalo", "Hernán", "Hugo", "Ignacio", "Iñaki",
	"Iván", "Javier", "Joaquín", "Jorge", "José", "Juan", "Julián", "Lautaro", "Leandro", "Leonel", "Lucas",
	"Luciano", "Luis", "Manuel", "Marcos", "Mariano", "Martín", "Mateo", "Matías", "Mauro", "Nahuel", "Nicolás",
	"Pablo", "Pedro", "Ramiro", "Raúl", "Rodrigo", "Santiago", "Sebastián", "Tobías", "Tomás", "Valentín",
}

var sampleWomen = [...]string{
	"Abigail", "Abril", "Agostina", "Agustina", "Ailén", "Ana", "Antonella", "Ayelén", "Belén", "Bianca", "Brisa",
	"Camila", "Candela", "Carolina", "Catalina", "Cecilia", "Celeste", "Clara", "Constanza", "Daniela", "Delfina",
	"Elena", "Emilia", "Eugenia", "Florencia", "Gabriela", "Guadalupe", "Inés", "Irene", "Isabel", "Jazmín",
	"Josefina", "Juana", "Julia", "Julieta", "Laura", "Lourdes", "Lucía", "Luciana", "Ludmila", "Luz", "Magalí",
	"Malena", "María", "Martina", "Micaela", "Milagros", "Mónica", "Morena", "Noelia", "Paula", "Pilar", "Rocío",
	"Rosario", "Sabrina", "Sofía", "Soledad", "Tamara", "Tatiana", "Valentina", "Valeria", "Verónica", "Victoria",
	"Ximena",
}

var sampleLast = [...]string{
	"Acosta", "Agüero", "Aguirre", "Álvarez", "Arellano", "Báez", "Benítez", "Blanco", "Bordón", "Bustos", "Cabrera",
	"Cáceres", "Cardozo", "Carrizo", "Castillo", "Castro", "Contreras", "Correa", "Cruz", "D'Angelo", "De León",
	"Díaz", "Domínguez", "Duarte", "Escobar", "Espíndola", "Farías", "Fernández", "Ferreyra", "Figueroa", "Flores",
	"Franco", "Galán", "García", "Giménez", "Godoy", "Gómez", "González", "Gutiérrez", "Hernández", "Herrera",
	"Ibáñez", "Juárez", "Ledesma", "Leiva", "López", "Lucero", "Luna", "Maldonado", "Mamani", "Mansilla", "Martínez",
	"Medina", "Méndez", "Mendoza", "Molina", "Morales", "Moreno", "Muñoz", "Navarro", "Núñez", "Ojeda", "Ortiz",
	"Páez", "Peña", "Peralta", "Pereyra", "Pérez", "Ponce", "Quiroga", "Quispe", "Ramírez", "Ramos", "Ríos", "Rivas",
	"Rivero", "Rodríguez", "Rojas", "Romero", "Ruiz", "Saldaña", "Sánchez", "Silva", "Soria", "Sosa", "Soto",
	"Suárez", "Toledo", "Toloza", "Torres", "Vargas", "Vega", "Velázquez", "Vera", "Villalba", "Zárate",
}

// writeSample writes a synthetic agency file of that many bets to w: rows as in the real files,
// CRLF, UTF-8, no header. A longer file of the same agency starts with the shorter one.
func writeSample(w io.Writer, id int, bets int) error {
	draws := sampleDraws{state: uint64(id)}
	buf := make([]byte, 0, sampleFlushBytes+sampleRowBytes)
	for row := range bets {
		buf = draws.appendRow(buf)
		if len(buf) < sampleFlushBytes && row+1 < bets {
			continue
		}
		if _, err := w.Write(buf); err != nil {
			return fmt.Errorf("sample: writing the bets of agency %d up to row %d of %d: %w", id, row+1, bets, err)
		}
		buf = buf[:0]
	}
	return nil
}

// sampleDraws is the generator splitmix64 (Steele, Lea and Flood, 2014). It is ours because the
// standard library promises no sequence for ever, and in whole numbers because those are the
// same on every processor.
type sampleDraws struct {
	state uint64 // the agency's id plus the step times the draws so far, modulo 2^64
}

// below draws a number from 0 to n-1. The top 32 bits, scaled, favour a number by less than n
// in 2^32: nobody sees that.
func (d *sampleDraws) below(n uint32) uint32 {
	d.state += 0x9e3779b97f4a7c15 // the step: 2^64 over the golden ratio, odd
	z := d.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9 // the two multipliers are the ones published with the generator
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return uint32(z >> 32 * uint64(n) >> 32)
}

// appendRow draws a person, a birthdate and a number, and appends them as one row. No name needs
// a CSV quote.
func (d *sampleDraws) appendRow(dst []byte) []byte {
	names := sampleMen[:]
	if d.below(2) == 1 {
		names = sampleWomen[:]
	}
	dst = d.appendFirstNames(dst, names)
	dst = append(append(dst, ','), sampleLast[d.below(uint32(len(sampleLast)))]...)
	dst = strconv.AppendUint(append(dst, ','), uint64(sampleFirstDocument+d.below(sampleDocuments)), 10)
	dst = d.date().AppendFormat(dst, ",2006-01-02,")
	dst = strconv.AppendUint(dst, uint64(d.below(sampleNumbers)), 10)
	return append(dst, "\r\n"...)
}

// appendFirstNames appends one name or two different ones.
func (d *sampleDraws) appendFirstNames(dst []byte, names []string) []byte {
	first := d.below(uint32(len(names)))
	dst = append(dst, names[first]...)
	if d.below(100) >= sampleTwoNames {
		return dst
	}
	second := d.below(uint32(len(names) - 1))
	if second >= first {
		second++ // steps over the first name, so that each of the others is as likely
	}
	return append(append(dst, ' '), names[second]...)
}

// date draws a year, then a month, then a day of it.
func (d *sampleDraws) date() time.Time {
	year, month := sampleFirstYear+d.below(sampleYears), 1+d.below(12)
	first := time.Date(int(year), time.Month(month), 1, 0, 0, 0, 0, time.UTC)
	days := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, int(d.below(uint32(days))))
}
