# The targets of the Go service's Makefile; each calls an npm script or Docker Compose.
.PHONY: build run test docker-up docker-down

build:
	npm run build

run:
	npm start

test:
	npm test

docker-up:
	docker compose up --build --detach

docker-down:
	docker compose down
