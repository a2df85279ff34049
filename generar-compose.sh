#!/bin/sh
# Writes a compose file with a server and N clients, as docker-compose-dev.yaml has them for five. The store has
# no named volume here: containers that are made anew begin with nothing stored. All but /data is read-only.
set -eu

usage() {
	echo "usage: $0 FILE N (the file to write; how many clients, 0 to 255)" >&2
	exit 2
}

server() {
	cat <<EOF
services:
  server:
    container_name: server
    image: tp0:latest
    command: -mode=server
    environment:
      - SERVER_PORT=12345
      - DRAW_AGENCIES=$1
    read_only: true
    cap_drop:
      - ALL
    security_opt:
      - no-new-privileges:true
    volumes:
      - /data
      - ./config.yaml:/data/config.yaml:ro
    networks:
      - testing_net
EOF
}

client() {
	cat <<EOF

  client$1:
    container_name: client$1
    image: tp0:latest
    command: -mode=client
    environment:
      - CLI_ID=$1
      - CLI_SERVER_ADDRESS=server:12345
      - DRAW_AGENCIES=$2
    read_only: true
    cap_drop:
      - ALL
    security_opt:
      - no-new-privileges:true
    volumes:
      - /data
      - ./config.yaml:/data/config.yaml:ro
      - ./.data:/data/.data:ro
    networks:
      - testing_net
    depends_on:
      - server
    healthcheck:
      disable: true
EOF
}

compose() {
	server "$1"
	id=1
	while [ "$id" -le "$1" ]; do
		client "$id" "$1"
		id=$((id + 1))
	done
	printf '\nnetworks:\n  testing_net:\n    driver: bridge\n'
}

[ $# -eq 2 ] && [ -n "$1" ] || usage
case $2 in
0 | [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) ;;
*) usage ;;
esac
[ "$2" -le 255 ] || usage

compose "$2" >"$1"
