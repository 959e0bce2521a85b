# headgate: what people and CI call. `make` alone lists the targets; docs/commands.md says more.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON  ?= python3
BIN     := .venv/bin
RUN     := $(BIN)/python
STAMP   := .venv/.installed
JUNIT   := .bench/junit.xml

# Arguments: make demo DATA=path FORMAT=movielens, make rollback VERSION=v3 REASON="bad day"
DATA    ?=
FORMAT  ?=
MAP     ?=
VERSION ?=
REASON  ?= rolled back by hand
ARGS    ?=
export DATA FORMAT MAP VERSION REASON
option   = $(if $($(2)),$(1)="$$$(2)")
source   = $(call option,--data,DATA) $(call option,--format,FORMAT) $(call option,--map,MAP)

##@ Start

help: ## what there is to do
	@awk -f infra/local/help.awk $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## everything once: stack, data, snapshot, recommendations, rollback [DATA=path FORMAT=movielens]
	@$(RUN) -m infra.local demo $(source)

install: $(STAMP) ## make .venv with everything of requirements.lock; nothing where nothing is missing
	@:

##@ The stack

up: $(STAMP) ## start Redis, Airflow and the service, or what of them does not run
	@$(RUN) -m infra.local up

down: $(STAMP) ## stop all of it; leaves no process
	@$(RUN) -m infra.local down

status: $(STAMP) ## what runs, which snapshots there are, which is live
	@$(RUN) -m infra.local status

visit: $(STAMP) ## simulated users come, click and buy; needs the sample world [ARGS="--seconds 60 --per-second 20"]
	@$(RUN) -m infra.local visit $(ARGS)

login: $(STAMP) ## show Airflow's address, user and password
	@$(RUN) -m infra.local login

kafka-up: $(STAMP) ## start a Kafka on this machine, for HEADGATE_EVENT_LOG=kafka; fetched from Maven Central once
	@$(RUN) -m infra.local kafka-up

kafka-down: $(STAMP) ## stop it; its data stays
	@$(RUN) -m infra.local kafka-down

clean: $(STAMP) ## delete data, snapshots and logs; refused while something runs
	@$(RUN) -m infra.local clean

##@ Snapshots

snapshot: $(STAMP) ## build one through Airflow and put it live [DATA=path FORMAT=csv MAP=user=..,item=..,time=..]
	@$(RUN) -m infra.local snapshot $(source)

validate: $(STAMP) ## have the gate judge a snapshot [VERSION=v3]
	@$(RUN) -m validation.gate --application ranking $(call option,--version,VERSION)

rollback: $(STAMP) ## put the previous, or a named, snapshot live within seconds [VERSION=v3 REASON=".."]
	@$(RUN) -m infra.snapshots rollback --reason "$$REASON" $(call option,--version,VERSION)

history: $(STAMP) ## who moved which snapshot to which state, when and why
	@$(RUN) -m infra.snapshots history

gc: $(STAMP) ## delete old serving copies from Redis, and what the store need not keep
	@$(RUN) -m infra.snapshots gc

##@ Proofs

test: $(STAMP) ## every proof at a small, stated size; JUnit XML in .bench/junit.xml [ARGS="-k name"]
	@mkdir -p .bench
	@$(BIN)/pytest --junit-xml=$(JUNIT) $(ARGS)

prove: $(STAMP) ## the same proofs at full size; JSON in .bench/prove.json
	@mkdir -p .bench
	@HEADGATE_PROOF_SIZE=full $(BIN)/pytest --junit-xml=$(JUNIT) $(ARGS)

check: $(STAMP) ## style, strict types, import direction, generated documents
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(RUN) -m infra.local.documents --check

##@ Measurements

bench: bench-batch bench-serve bench-cascade bench-snapshots bench-nearline bench-demo ## measure everything, then write docs/benchmarks.md
	@$(RUN) -m tests.bench.render

bench-batch: $(STAMP) ## Spark and FAISS against FAISS alone; Redis memory; .bench/batch.json
	@$(RUN) -m tests.bench.bench_batch

bench-serve: $(STAMP) ## the service under open-loop load; .bench/serve.json
	@$(RUN) -m tests.bench.bench_serve

bench-cascade: $(STAMP) ## shared native calls, freed on time, each stage's worth; .bench/cascade.json [ARGS="--parts batching"]
	@$(RUN) -m tests.bench.bench_cascade $(ARGS)

bench-snapshots: $(STAMP) ## flips, rollbacks, loads and torn reads under load; .bench/snapshots.json [ARGS="--no-airflow"]
	@$(RUN) -m tests.bench.bench_snapshots $(ARGS)

bench-nearline: $(STAMP) ## events counted a second, freshness, kills, replays; .bench/nearline.json [ARGS="--parts throughput"]
	@$(RUN) -m tests.bench.bench_nearline $(ARGS)

bench-demo: $(STAMP) ## make demo in a fresh clone on warm caches; .bench/demo.json
	@$(RUN) -m tests.bench.bench_demo

bench-quality: $(STAMP) ## retrieval on public data and against the sample world's truth; .bench/quality.json
	@$(RUN) -m tests.bench.bench_quality

##@ Upkeep

docs: $(STAMP) ## write docs/settings.md and docs/commands.md anew
	@$(RUN) -m infra.local.documents

lock: $(STAMP) ## resolve pyproject.toml into requirements.lock: names, versions, hashes
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

# Bootstrap writes the stamp last, and only touches it where everything is there.
$(STAMP): requirements.lock pyproject.toml infra/local/bootstrap.py
	@$(PYTHON) infra/local/bootstrap.py

.PHONY: help demo install up down status visit login kafka-up kafka-down clean snapshot validate rollback history gc test prove check \
  bench bench-batch bench-serve bench-cascade bench-snapshots bench-nearline bench-demo bench-quality docs lock
