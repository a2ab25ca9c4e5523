//! A client that retries until it knows, and then asks once more.

use std::error::Error;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use crate::oracle::Oracle;
use crate::{CALM, SERVICES, service};

/// Those that may run again come twice.
const PATHS: [&str; 7] = [
    "/rerun", "/rerun", "/wait", "/wait", "/hold", "/doubt", "/hang",
];
/// Every client uses the same keys; each means its own.
const KEYS: usize = 4;
/// At most, in milliseconds. Many leave before their answer, which takes up to twice as long.
const PATIENCE: u64 = 4_000;
const LONGEST_RUN: u64 = 8_000;
/// How many requests of one key are under way at once.
const AT_ONCE: usize = 2;

fn now() -> Duration {
    turmoil::sim_elapsed().expect("a simulation")
}

struct Answer {
    status: StatusCode,
    is_replay: bool,
    is_unrecorded: bool,
    text: String,
}

pub(crate) async fn run(seed: u64, number: usize, oracle: Oracle) -> Result<(), Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(31) + number as u64);
    for key in 0..KEYS {
        sleep(Duration::from_millis(random.u64(..3_000))).await;
        let path = *random.choice(&PATHS).expect("some");
        let order = format!("{number} {key} {}", random.u64(..LONGEST_RUN));
        let requests: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (random, order, oracle) = (random.fork(), order.clone(), oracle.clone());
                tokio::spawn(until_known(random, path, number, key, order, oracle))
            })
            .collect();
        for request in requests {
            request.await?;
        }
    }
    Ok(())
}

/// Retries until there is an answer or it is known that there is none, and then looks whether it
/// stays so.
async fn until_known(
    mut random: fastrand::Rng,
    path: &'static str,
    number: usize,
    key: usize,
    order: String,
    oracle: Oracle,
) {
    let mut known = 0;
    let began_at = now();
    while known < 2 {
        if let Some(calm_since) = oracle.calm_since() {
            let took = now().saturating_sub(calm_since.max(began_at));
            assert!(took < CALM, "{order} has no answer after {took:?}");
        }
        let service = *random.choice(&SERVICES).expect("some");
        let patience = Duration::from_millis(random.u64(500..PATIENCE));
        let asked = timeout(patience, ask(service, path, number, key, order.clone()));
        let is_known = match asked.await {
            Ok(Ok(answer)) => learn(&oracle, path, number, key, &order, &answer),
            // Cut off, or too late.
            Ok(Err(_)) | Err(_) => false,
        };
        known += usize::from(is_known);
        sleep(Duration::from_millis(random.u64(50..300))).await;
    }
}

/// Whether the answer is one to go home with.
fn learn(
    oracle: &Oracle,
    path: &str,
    number: usize,
    key: usize,
    order: &str,
    answer: &Answer,
) -> bool {
    match answer.status {
        StatusCode::CREATED => {
            assert!(
                answer.text.starts_with(order),
                "{order} got the answer of another: {}",
                answer.text
            );
            let is_replay = answer.is_replay && !answer.is_unrecorded;
            oracle.answered(number, key, &answer.text, is_replay);
            // It may be lost with its process.
            !answer.is_unrecorded
        }
        StatusCode::CONFLICT => {
            assert!(
                !answer.text.contains("idempotency_key_reused"),
                "{order} met another request"
            );
            answer.text.contains("idempotency_outcome_unknown")
        }
        // The outcome is unknown, and so a retry is told.
        StatusCode::GATEWAY_TIMEOUT if matches!(path, "/doubt" | "/hang") => false,
        StatusCode::SERVICE_UNAVAILABLE => false,
        other => panic!("{order} got {other}: {}", answer.text),
    }
}

async fn ask(
    service: &str,
    path: &str,
    number: usize,
    key: usize,
    order: String,
) -> Result<Answer, Box<dyn Error>> {
    let stream = TcpStream::connect((service, service::PORT)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", service)
        .header("authorization", format!("Bearer {number}"))
        .header("idempotency-key", key.to_string())
        .body(Full::<Bytes>::from(order))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let is_replay = response.headers().contains_key("idempotency-replayed");
    let is_unrecorded = response.headers().contains_key("idempotency-degraded");
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(Answer {
        status,
        is_replay,
        is_unrecorded,
        text: String::from_utf8(body.to_vec())?,
    })
}
