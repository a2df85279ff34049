# `make` builds the program and `make help` lists the targets. Settings go on the command line:
#
#	make build GOOS=linux GOARCH=mipsle GOMIPS=softfloat
#	make build TAGS=notls              without TLS, status page and stream: less than half the size

GO       = go
DEV      = docker-compose-dev.yaml
DOWN     =

# Some seconds a fuzz target. A count, since a duration makes Go up to 1.26 fail now and then at its end with
# "context deadline exceeded" and nothing found (golang.org/issue/75804).
FUZZTIME = 40000x

# Further flags of go test, such as -v.
TESTFLAGS =

# Twelve digits of the commit wherever it is cloned: git's own choice depends on how much else it knows.
VERSION := $(shell git describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
TIME    := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# Static and stripped; without paths and build times in it, so that the same commit gives the same bytes.
OUT   = tp0
TAGS  =
BUILD = CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -tags "$(TAGS)" \
	-ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)"

# What runs here, whatever the program is built for.
HERE = GOOS= GOARCH= GOARM= GOMIPS= $(GO) run

# Where install puts things.
PREFIX  = /usr/local
DESTDIR =

# The image: its processor (amd64, arm64, …), its name, and the address of the sources for its label.
ARCH   = $(shell $(GO) env GOHOSTARCH)
IMAGE  = tp0:latest
SOURCE = unknown

# The tests of e2e that run once more with keys.
OVERTLS = TestE2EWire/.*at_once|TestE2EKillsRelaxed|TestE2EBadNetwork/all|TestE2EBetsAfterDraw|TestE2EServerSignals/idle|TestE2EAddresses|TestE2ERun

# The race detector needs cgo; Go turns cgo off by itself where there is no C compiler.
RACE    = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

## build                the program: ./tp0 (GOOS, GOARCH, …; TAGS: nohttp, nostream or both, notls: without TLS and those)
.PHONY: build
build:
	$(BUILD) -o $(OUT) .

## man                  the manual page, ./tp0.1, from the table that tp0 -h prints
.PHONY: man
man:
	$(HERE) . -h >tp0.help
	$(HERE) ./tools/man -version "$(VERSION)" <tp0.help >tp0.1
	rm tp0.help

## install              program, manual page, systemd unit and documents (PREFIX=/usr/local, DESTDIR)
.PHONY: install
install: build man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 \
		$(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/doc/tp0
	install -m 755 $(OUT) $(DESTDIR)$(PREFIX)/bin/tp0
	install -m 644 tp0.1 $(DESTDIR)$(PREFIX)/share/man/man1/tp0.1
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' deploy/tp0.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/tp0.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/tp0.service
	install -m 644 README.md LICENSE config.yaml $(DESTDIR)$(PREFIX)/share/doc/tp0

## dist                 an archive for each kind of board, and SHA256SUMS, in ./dist (TARGETS=linux/arm/5,…)
.PHONY: dist
dist:
	$(HERE) ./tools/dist -version "$(VERSION)" -commit "$(COMMIT)" -time "$(TIME)" \
		$(if $(TARGETS),-targets $(TARGETS))

## run                  five agencies send their files to a server in ./run; the result is counted (TLS=1: with keys)
.PHONY: run
run: build
	@$(GO) run ./tools/run

## cluster              the same on three engines and two servers, of which one each is killed on the way
.PHONY: cluster
cluster: build
	@$(GO) run ./tools/run -cluster

## test                 go vet, all tests, every fuzz target (FUZZTIME=5m: each for so long)
.PHONY: test
test:
	$(GO) vet ./...
	$(GO) vet -tags notls .
	$(GO) vet -tags 'nohttp nostream' .
	@test -n "$(RACE)" || echo "WITHOUT THE RACE DETECTOR: no C compiler answers, or cgo is off"
	$(GO) test -count=1 $(RACE) -timeout 30m $(TESTFLAGS) ./...
	TLS=1 $(GO) test -count=1 $(RACE) -run '$(OVERTLS)' ./e2e
	@for target in $$($(GO) test -list '^Fuzz' . | grep '^Fuzz'); do \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x . || exit 1; \
	done
	@docker info >/dev/null 2>&1 && $(COMPOSE) version >/dev/null 2>&1 || \
		echo "SKIPPED: the container tests, no Docker engine with Compose answers"

## test-arch            all tests on every other processor, under emulation (qemu-user-static)
.PHONY: test-arch
test-arch:
	TEST_ARCH=all $(GO) test -count=1 -timeout 0 -run 'TestArch' -v ./e2e

## screenshot           docs/page.png, the status page as the README shows it (needs chromium)
.PHONY: screenshot
screenshot:
	SCREENSHOT=docs/page.png $(GO) test -count=1 -run 'TestScreenshot$$' .

## engine               the path of the replicated engine that tests and tools start; installed if there is none
.PHONY: engine
engine:
	@$(HERE) ./tools/engine

## torture              kills, cuts and lost answers by the thousand (KILLS, CUTS, PROXY, FULL, HISTORIES, …: how many)
.PHONY: torture
torture:
	TORTURE=1 $(GO) test -count=1 -timeout 0 -p 1 -run 'Torture|TestStore(Flips|Truncations)' -v . ./e2e
	$(GO) test -count=1 -tags notls . # the unit tests in the smallest build

## bench                bets a second against this disk's limit, then Go's benchmarks (ROWS, CLIENTS, ROUNDS; STREAM=1: with a stream)
.PHONY: bench
bench: build
	$(GO) run ./tools/bench
	$(GO) test -run '^$$' -bench . -benchmem .

## lint                 fails where gofmt or go vet has something to say
.PHONY: lint
lint:
	gofmt -l .
	@test -z "$$(gofmt -l .)"
	$(GO) vet ./...

## data                 a sample file in ./.data for each of the five agencies that has none
.PHONY: data
data: build
	@$(GO) run ./tools/run -samples

## docker-image         the image tp0:latest, FROM scratch (ARCH=arm64: for that processor)
.PHONY: docker-image
docker-image:
	$(MAKE) build GOOS=linux GOARCH=$(ARCH)
	docker build --platform linux/$(ARCH) \
		--build-arg VERSION="$(VERSION)" --build-arg REVISION="$(COMMIT)" --build-arg SOURCE="$(SOURCE)" \
		-t $(IMAGE) .

## docker-compose-up    the image, then a server and five clients in containers
.PHONY: docker-compose-up
docker-compose-up: data docker-image
	$(COMPOSE) -f $(DEV) up -d

## docker-compose-logs  follows their logs
.PHONY: docker-compose-logs
docker-compose-logs:
	$(COMPOSE) -f $(DEV) logs -f

## docker-compose-down  stops them (SIGTERM), shows how they ended, removes them; DOWN=-v: the stored bets as well
.PHONY: docker-compose-down
docker-compose-down:
	$(COMPOSE) -f $(DEV) stop -t 10
	$(COMPOSE) -f $(DEV) ps -a
	$(COMPOSE) -f $(DEV) down $(DOWN)

## clean                what was built or measured; not bets.csv, not ./.data
.PHONY: clean
clean:
	rm -rf tp0 tp0.1 dist run

## help                 this list
.PHONY: help
help:
	@sed -n 's/^## /make /p' Makefile
