#!/usr/bin/env bash
# Measures how much longer 300 annotated handlers compile than 300 handlers with `#[debug_handler]`, and
# how much larger the program becomes.
#
#     benches/compile_time.sh [check|build]                 # in seconds of processor time
#     benches/compile_time.sh [check|build] instructions    # counted by valgrind
#     benches/compile_time.sh lines
#     benches/compile_time.sh size [release]
#
# `HANDLERS=100` sets another number of handlers. With `BODIES=own`, each handler has a body of a type of its
# own. Otherwise all bodies have one type. The script builds the dependencies once, and then compiles only the
# crate, for each kind of handler in turn. `seconds` prints the best of five times, because other work on the
# machine disturbs the measurement. `instructions` prints one count, which is the same in every run but takes
# forty times as long. `lines` prints the number of LLVM lines before any optimization. `size` prints the size of
# the debug build, as machine code and as a file with the information for debuggers: with one handler, with all
# handlers, and per handler. The program with one handler shows the size of the libraries. `size release` does the
# same with an optimized build. `in_memory` is the program `idempotent` with the layer and its store in memory,
# which the others leave out. `by_hand` is the smallest wrapper that extracts the last argument late and owns the
# future of the handler, which any such library needs.
set -eu
# With incremental compilation, the second build would find everything already compiled.
export CARGO_INCREMENTAL=0

command=${1:-build}
counted=${2:-seconds}
handlers=${HANDLERS:-300}
bodies=${BODIES:-shared}
profile=debug
repository=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

# Prints the type of the body of one handler.
body() { # number of the handler
    if [ "$bodies" = own ]; then echo "Order<$1>"; else echo 'Order<0>'; fi
}

write_crate() { # name, attribute, number of handlers
    mkdir -p "$place/$1/src"
    cat > "$place/$1/Cargo.toml" <<TOML
[package]
name = "$1"
version = "0.0.0"
edition = "2024"

[dependencies]
axum = { version = "0.8", features = ["macros"] }
axum-idem = { path = "$repository" }
serde = { version = "1", features = ["derive"] }
tokio = { version = "1", features = ["macros", "net", "rt-multi-thread"] }

[workspace]
TOML
    {
        cat <<'RUST'
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};

#[derive(Clone)]
struct Desk(std::sync::Arc<str>);

#[derive(serde::Deserialize, serde::Serialize)]
struct Order<const N: usize> {
    symbol: String,
    quantity: u32,
}

impl Desk {
    async fn place<const N: usize>(&self, account: u64, order: Order<N>) -> Result<Order<N>, StatusCode> {
        if account == 0 || self.0.is_empty() {
            return Err(StatusCode::NOT_FOUND);
        }
        Ok(order)
    }
}
RUST
        if [ "$1" = by_hand ]; then
            by_hand "$3"
        else
            annotated "$2" "$3"
        fi
        echo
        echo '#[tokio::main]'
        echo 'async fn main() {'
        echo '    let router = Router::new()'
        for i in $(seq "$3"); do
            echo "        .route(\"/$i/{account}\", post(place_$i))"
        done
        if [ "$1" = in_memory ]; then
            echo '        .layer(axum_idem::Idempotency::in_memory())'
        fi
        cat <<'RUST'
        .with_state(Desk("desk".into()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    axum::serve(listener, router).await.expect("a server");
}
RUST
    } > "$place/$1/src/main.rs"
    cp "$repository/Cargo.lock" "$place/$1/"
}

annotated() { # attribute, number of handlers
    for i in $(seq "$2"); do
        local body
        body=$(body "$i")
        cat <<RUST

$1
async fn place_$i(
    State(desk): State<Desk>,
    Path(account): Path<u64>,
    Json(order): Json<$body>,
) -> Result<(StatusCode, Json<$body>), StatusCode> {
    let order = desk.place(account, order).await?;
    Ok((StatusCode::CREATED, Json(order)))
}
RUST
    done
}

by_hand() { # number of handlers
    cat <<'RUST'

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::pin::Pin;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Later<T>(BoxFuture<Result<T, Response>>);
struct ViaLater;

impl<S: Clone + Send + Sync + 'static, T: FromRequest<S> + 'static> FromRequest<S, ViaLater> for Later<T> {
    type Rejection = Infallible;
    async fn from_request(request: Request, state: &S) -> Result<Self, Infallible> {
        let state = state.clone();
        let extraction = async move { T::from_request(request, &state).await };
        Ok(Self(Box::pin(async { extraction.await.map_err(IntoResponse::into_response) })))
    }
}

impl<T: Send + 'static> Later<T> {
    fn run<F>(self, handler: impl FnOnce(T) -> F + Send + 'static) -> BoxFuture<Response>
    where
        F: Future<Output: IntoResponse> + Send + 'static,
    {
        Box::pin(async move {
            match self.0.await {
                Ok(argument) => handler(argument).await.into_response(),
                Err(rejection) => rejection,
            }
        })
    }
}
RUST
    for i in $(seq "$1"); do
        local body
        body=$(body "$i")
        cat <<RUST

fn place_$i(
    State(desk): State<Desk>,
    Path(account): Path<u64>,
    order: Later<Json<$body>>,
) -> BoxFuture<Response> {
    order.run(async move |Json(order)| {
        if false {
            return None::<Result<(StatusCode, Json<$body>), StatusCode>>.unwrap();
        }
        let order = desk.place(account, order).await?;
        Ok((StatusCode::CREATED, Json(order)))
    })
}
RUST
    done
}

seconds() { # name
    touch "$place/$1/src/main.rs"
    local TIMEFORMAT='%U %S'
    { time (cd "$place/$1" && cargo $command --quiet --target-dir "$place/target"); } 2>&1 |
        awk '{ print $1 + $2 }'
}

cat > "$place/counting" <<'SH'
#!/bin/sh
exec valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null "$@"
SH
chmod +x "$place/counting"

instructions() { # name
    touch "$place/$1/src/main.rs"
    (cd "$place/$1" && RUSTC_WORKSPACE_WRAPPER="$place/counting" \
        cargo "$command" --target-dir "$place/target" 2>&1) |
        awk '/I +refs/ { gsub(",", "", $NF); count = $NF } END { print count }'
}

lines() { # name
    touch "$place/$1/src/main.rs"
    (cd "$place/$1" && cargo rustc --quiet --target-dir "$place/target" -- \
        --emit=llvm-ir -C no-prepopulate-passes -C codegen-units=1 -C debuginfo=0)
    cat "$place"/target/debug/deps/"$1"-*.ll | wc -l
}

# Prints the size of the built crate in bytes: its machine code and its file.
bytes() { # name
    local program=$place/target/$profile/$1
    echo "$(size "$program" | awk 'NR == 2 { print $1 }') $(stat --format %s "$program")"
}

write_crates() { # number of handlers
    write_crate plain '' "$1"
    write_crate debug_handler '#[axum::debug_handler]' "$1"
    write_crate idempotent '#[axum_idem::idempotent(scope = token)]' "$1"
    write_crate in_memory '#[axum_idem::idempotent(scope = token)]' "$1"
    write_crate by_hand '' "$1"
}

if [ "$command" = size ]; then
    command=build
    if [ "$counted" = release ]; then
        profile=release
        command='build --release'
    fi
    for number in 1 "$handlers"; do
        write_crates "$number"
        for name in plain debug_handler idempotent in_memory by_hand; do
            seconds "$name" > /dev/null
            bytes "$name" > "$place/$name.$number"
        done
    done
    for name in plain debug_handler idempotent in_memory by_hand; do
        read -r code_of_one file_of_one < "$place/$name.1"
        read -r code file < "$place/$name.$handlers"
        echo "$name: code $code_of_one to $code, $(((code - code_of_one) / (handlers - 1))) for each;" \
            "file $file_of_one to $file, $(((file - file_of_one) / (handlers - 1))) for each"
    done
    exit
fi
write_crates "$handlers"
if [ "$command" = lines ]; then
    for name in plain debug_handler idempotent; do
        echo "$name: $(lines "$name") lines"
    done
    exit
fi
for name in plain debug_handler idempotent; do
    seconds "$name" > /dev/null
done
if [ "$counted" = instructions ]; then
    for name in plain debug_handler idempotent; do
        echo "$name: $(instructions "$name") instructions"
    done
    exit
fi
for name in plain debug_handler idempotent; do
    : > "$place/$name.times"
done
for _ in 1 2 3 4 5; do
    for name in plain debug_handler idempotent; do
        seconds "$name" >> "$place/$name.times"
    done
done
for name in plain debug_handler idempotent; do
    echo "$name: $(sort -n "$place/$name.times" | head -n 1) s"
done
