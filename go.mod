module tp0

go 1.25
