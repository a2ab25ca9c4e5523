#!/usr/bin/env bash
# Runs every bench on this machine and stores the output in docs/performance. Then fills in the marked
# places of docs/performance.md and docs/scale.md, and draws the plots.
#
#     benches/report.sh [name…]
#
# Without names, the script runs all benches, which takes about half an hour on an idle machine. `peers`
# needs crates that nothing else needs, so only this script builds it.
set -euo pipefail
cd "$(dirname "$0")/.."
output=docs/performance
mkdir -p "$output"

bench() { # file, bench, and the arguments after `--`
    local file=$1 name=$2
    shift 2
    printf '%s\n' "== $file" >&2
    cargo bench --quiet --all-features --locked --bench "$name" -- "$@" > "$output/$file.txt.new"
    mv "$output/$file.txt.new" "$output/$file.txt"
}

peers() { # file, command
    printf '%s\n' "== $1" >&2
    (cd benches/peers && cargo run --quiet --release --locked --ignore-rust-version -- "$2") \
        > "$output/$1.txt.new"
    mv "$output/$1.txt.new" "$output/$1.txt"
}

run() {
    case $1 in
        cost)
            bench cost cost
            bench cost_misses cost --misses
            ;;
        in_process) bench in_process in_process ;;
        in_process_full) FULL=1 ROUNDS=100 bench in_process_full in_process ;;
        in_process_many) RECORDS=1000000 ROUNDS=100 bench in_process_many in_process ;;
        loopback) bench loopback loopback ;;
        sizes) bench sizes sizes ;;
        memory)
            bench memory memory
            bench memory_churn memory --churn
            ;;
        memory_churn) bench memory_churn memory --churn ;;
        contention) bench contention contention ;;
        commit)
            bench commit commit
            bench commit_sqlite commit sqlite
            ;;
        stores) bench stores stores ;;
        scale) bench scale stores scale ;;
        sqlite) bench sqlite sqlite ;;
        peers)
            peers peers_in_process in-process
            ROUNDS=10 peers peers_loopback loopback
            RECORDS=20000 peers peers_memory memory
            ;;
        documents)
            benches/plot.py "$output"
            benches/quote.py "$output" docs/performance.md docs/scale.md
            ;;
        *)
            echo "no such bench: $1" >&2
            exit 2
            ;;
    esac
}

if [ $# = 0 ]; then
    set -- cost in_process in_process_full in_process_many sizes loopback memory contention commit stores scale \
        sqlite peers documents
fi
for name; do
    run "$name"
done
