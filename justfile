# Short names for the commands of CONTRIBUTING.md. `just` alone lists them.

set positional-arguments

default:
    @just --list

# Builds the programs, optimised
build:
    cargo build --release --bins

# Starts a cluster: two masters, three workers
run *flags:
    cargo run --release -- "$@"

# Runs all tests, with every story
test *flags:
    cargo test "$@"

# Runs one story with one seed
story name seed="1":
    cargo run -q -p chatchat-sim -- run "$1" --seed "$2"

# Runs one story on real processes
real name seed="1":
    cargo build -q --bins
    cargo run -q -p chatchat-sim -- real "$1" --seed "$2"

# Runs many seeds of all stories, or of those named, and sums them up
sweep seeds="20" *stories:
    seeds="$1"; shift; cargo run -q --profile sim -p chatchat-sim -- sweep --seeds "$seeds" "$@"

# Builds target/pgo/chatchat-sim for campaigns of hours, with a profile of its own runs (10 to 15 minutes)
pgo:
    sim/pgo

# Finds the smallest plan that fails as this story does with this seed
shrink name seed="1":
    cargo run -q --profile sim -p chatchat-sim -- shrink "$1" --seed "$2"

# Plants bugs, all of them or those named, and hunts for them
bugs *names:
    cargo run -q --profile sim -p chatchat-sim -- bugs "$@"

# Runs every story in two processes per seed and compares the logs
meta seeds="5":
    cargo run -q -p chatchat-sim -- meta --seeds "$1"

# Fuzzes one target by its coverage; needs a C++ compiler. What it finds stands in fuzz/artifacts
fuzz name="frames" seconds="60" *flags:
    mkdir -p fuzz/target/found/"$1" fuzz/artifacts
    cd fuzz && name="$1" seconds="$2" && shift 2 && cargo run --release --bin "$name" -- \
        -max_total_time="$seconds" -timeout=5 -rss_limit_mb=512 -artifact_prefix=artifacts/ \
        "$@" target/found/"$name" corpus/"$name"

# Checks format and lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Builds the documentation, warnings are errors
doc:
    RUSTDOCFLAGS="--cfg madsim -D warnings" cargo doc --workspace --no-deps

# Runs one bench: queue, peers, fanout, handshake, key_refresh, storm, loopback, group_commit or crowd
bench name="queue":
    cargo bench --bench "$1"

# Runs a cluster of processes under faults for 20 minutes (--short: 3); needs Node, and root for full disks
cluster *flags: build
    node tests/cluster/run.mjs "$@"

# Makes three hosts as docs/operate.md says, in network namespaces, and breaks them for 9 minutes (--short: 2); needs Node and root
hosts *flags: build
    node tests/hosts/run.mjs "$@"

# Kills masters and workers of a cluster one after another, and shows how soon all works again (8 minutes; --short: 2); needs Node
recovery *flags: build
    node tests/cluster/recovery.mjs "$@"

# Opens 10,000 idle streams on one master (5 minutes; --short: 1,000 in 1); needs Node
streams *flags: build
    node tests/cluster/streams.mjs "$@"

# Drives the page in a browser; needs Node and Chromium
browser *flags: build
    npm --prefix tests/browser ci --no-audit --no-fund
    node tests/browser/run.mjs "$@"

# Runs everything that must hold before a change lands
gate:
    .ci/run
