//! Measures contenders over loopback: the server on one processor, its client on another.

use std::collections::VecDeque;
use std::env;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::contenders::{Contender, body};
use super::process::{on_processor, seconds_run};
use super::wire::{Awaited, Polled, Request};
use super::{float, line, median, ratios, setting, shown};

const CONNECTIONS: u64 = 64;

/// Requests to one contender in one round at saturation.
const REQUESTS: u64 = CONNECTIONS * 100;

/// The duration of one contender in one round of the open loop.
const OPEN: Duration = Duration::from_millis(200);

/// The loads for the latency measurement, as shares of bare axum's saturation. At higher loads, new keys
/// would need more than the processor can give.
const LOADS: [f64; 2] = [0.3, 0.5];

/// Measures the given contenders and prints the tables. All contenders are compared with the first. Starts
/// this program twice more, as server and as client.
pub(crate) fn run(contenders: fn() -> Vec<Contender>) {
    match env::args().nth(1).as_deref() {
        Some("--serve") => serve(contenders()),
        Some("--drive") => drive(&contenders()),
        _ => {
            let status = on_processor(1).arg("--drive").status();
            assert!(status.expect("`taskset` runs").success());
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(contenders: Vec<Contender>) {
    let mut servers = JoinSet::new();
    for contender in contenders {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        println!("{}", listener.local_addr().expect("a bound address").port());
        servers.spawn(async move { axum::serve(listener, contender.router).await });
    }
    servers.join_next().await;
}

/// The server process. It ends with the measurement.
struct Server {
    process: Child,
    ports: Vec<u16>,
}

impl Server {
    fn start(contenders: usize) -> Self {
        let mut command: Command = on_processor(0);
        command.arg("--serve").stdout(Stdio::piped());
        let mut process = command.spawn().expect("`taskset` runs");
        let lines = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        let ports = lines.take(contenders);
        let ports = ports.map(|port| port.expect("a line").parse().expect("a port"));
        Self {
            ports: ports.collect(),
            process,
        }
    }

    fn seconds_run(&self) -> f64 {
        seconds_run(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may already have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn drive(contenders: &[Contender]) {
    let server = Server::start(contenders.len());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a tokio runtime");
    let rate = runtime.block_on(saturate(contenders, &server));
    let mut next_key = OPEN_KEYS;
    for load in LOADS {
        open_loop(contenders, &server, load, rate * load, &mut next_key);
    }
}

/// The measurements of one contender, round by round.
#[derive(Default)]
struct Rounds {
    throughput: Vec<f64>,
    processor: Vec<f64>,
    client: Vec<f64>,
}

/// Each connection sends its next request as soon as it has a response. Returns the throughput of bare
/// axum.
async fn saturate(contenders: &[Contender], server: &Server) -> f64 {
    let body = body(200);
    let mut lanes: Vec<Vec<Awaited>> = Vec::new();
    for (contender, port) in contenders.iter().zip(&server.ports) {
        let request = Request::new(contender.key, &body);
        let connections = 0..CONNECTIONS;
        let mut connections: Vec<_> = connections
            .map(|_| Awaited::new(*port, request.clone()))
            .collect();
        // The record for the replays must exist before the measurement.
        connections[0].ask(FIRST_OF_ALL).await;
        lanes.push(connections);
    }
    let mut all: Vec<Rounds> = contenders.iter().map(|_| Rounds::default()).collect();
    for round in 0..setting("ROUNDS", 60) {
        for (connections, rounds) in lanes.iter_mut().zip(&mut all) {
            let (begun, ran) = (Instant::now(), server.seconds_run());
            let own = seconds_run(std::process::id());
            let mut asking = JoinSet::new();
            for (lane, mut connection) in (0..).zip(connections.drain(..)) {
                asking.spawn(async move {
                    for n in 0..REQUESTS / CONNECTIONS {
                        connection
                            .ask(round * REQUESTS + n * CONNECTIONS + lane)
                            .await;
                    }
                    connection
                });
            }
            while let Some(connection) = asking.join_next().await {
                connections.push(connection.expect("a response"));
            }
            let seconds = begun.elapsed().as_secs_f64();
            rounds.throughput.push(float(REQUESTS) / seconds);
            rounds.processor.push(server.seconds_run() - ran);
            rounds
                .client
                .push((seconds_run(std::process::id()) - own) / seconds);
        }
    }
    let rate = median(&all[0].throughput);
    println!("at saturation, {CONNECTIONS} connections; bare axum {rate:.0} requests a second");
    line(
        "ratio to bare",
        &["throughput", "processor time", "client busy"],
    );
    for (contender, rounds) in contenders.iter().zip(&all) {
        line(
            contender.name,
            &[
                shown(ratios(&rounds.throughput, &all[0].throughput)),
                shown(ratios(&rounds.processor, &all[0].processor)),
                format!("{:.2}", median(&rounds.client)),
            ],
        );
    }
    rate
}

/// Keys of the open loop. They are larger than all keys of the saturation.
const OPEN_KEYS: u64 = 1 << 40;
const FIRST_OF_ALL: u64 = 1 << 44;

/// Sends requests on a schedule. Each latency counts from the scheduled time, even when the server is
/// behind.
fn open_loop(contenders: &[Contender], server: &Server, load: f64, rate: f64, next_key: &mut u64) {
    let body = body(200);
    let mut lanes: Vec<Vec<Polled>> = Vec::new();
    for (contender, port) in contenders.iter().zip(&server.ports) {
        let request = Request::new(contender.key, &body);
        let connections = 0..CONNECTIONS;
        lanes.push(
            connections
                .map(|_| Polled::new(*port, request.clone()))
                .collect(),
        );
    }
    let mut medians: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..setting("ROUNDS", 60) / 2 {
        for (connections, medians) in lanes.iter_mut().zip(&mut medians) {
            medians.push(median(&on_schedule(connections, rate, next_key)));
        }
    }
    let percent = load * 100.0;
    println!("\nopen loop at {percent:.0} % of bare's saturation; latency from the scheduled time");
    line("ratio to bare", &["median"]);
    let bare = &medians[0];
    for (contender, medians) in contenders.iter().zip(&medians) {
        line(contender.name, &[shown(ratios(medians, bare))]);
    }
    println!("bare axum: median {:.0} µs", median(bare) * 1e6);
}

/// Returns the latencies of all requests of one turn.
fn on_schedule(connections: &mut [Polled], rate: f64, next_key: &mut u64) -> Vec<f64> {
    let mut latencies = Vec::new();
    let mut idle: VecDeque<usize> = (0..connections.len()).collect();
    let mut busy: Vec<(usize, Instant)> = Vec::new();
    let begun = Instant::now();
    let mut sent = 0;
    loop {
        let due = Duration::from_secs_f64(float(sent) / rate);
        if due > OPEN && busy.is_empty() {
            return latencies;
        }
        if due <= OPEN
            && due <= begun.elapsed()
            && let Some(connection) = idle.pop_front()
        {
            connections[connection].send(*next_key);
            *next_key += 1;
            sent += 1;
            busy.push((connection, begun + due));
        }
        busy.retain(|&(connection, due)| {
            let has_answered = connections[connection].has_answered();
            if has_answered {
                latencies.push(due.elapsed().as_secs_f64());
                idle.push_back(connection);
            }
            !has_answered
        });
    }
}
