//! A client that retries until it knows the outcome, and then sends the request once more.

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

/// Endpoints that run again after an unknown outcome are twice as likely.
const PATHS: [&str; 7] = [
    "/rerun", "/rerun", "/wait", "/wait", "/hold", "/doubt", "/hang",
];
/// Every client uses the same keys, each in its own scope.
const KEYS: usize = 4;
/// The longest client timeout in milliseconds. A response takes up to twice as long, so many clients
/// leave first.
const PATIENCE: u64 = 4_000;
const LONGEST_RUN: u64 = 8_000;
/// How many requests of one key a client sends at the same time.
const AT_ONCE: usize = 2;

fn now() -> Duration {
    turmoil::sim_elapsed().expect("the test runs inside a simulation")
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
        let path = *random.choice(&PATHS).expect("several paths");
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

/// Retries until there is a response or the outcome is known to be unknown. Then checks that a further
/// request gets the same.
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
            assert!(took < CALM, "{order} has no response after {took:?}");
        }
        let service = *random.choice(&SERVICES).expect("two services");
        let patience = Duration::from_millis(random.u64(500..PATIENCE));
        let asked = timeout(patience, ask(service, path, number, key, order.clone()));
        let is_known = match asked.await {
            Ok(Ok(answer)) => learn(&oracle, path, number, key, &order, &answer),
            // The connection broke, or the response came too late.
            Ok(Err(_)) | Err(_) => false,
        };
        known += usize::from(is_known);
        sleep(Duration::from_millis(random.u64(50..300))).await;
    }
}

/// Returns whether the response is final.
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
                "{order} got the response of another request: {}",
                answer.text
            );
            let is_replay = answer.is_replay && !answer.is_unrecorded;
            oracle.answered(number, key, &answer.text, is_replay);
            // An unrecorded response is lost when its process dies.
            !answer.is_unrecorded
        }
        StatusCode::CONFLICT => {
            assert!(
                !answer.text.contains("idempotency_key_reused"),
                "{order} was taken for a different request"
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
