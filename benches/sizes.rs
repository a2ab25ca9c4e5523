//! Measures a request with larger bodies, for each digest: `cargo bench --bench sizes --all-features`.
//!
//! The times are measured in process, as ratios to bare axum with the same body. All paths take turns
//! in many short rounds (`ROUNDS`, 100) of one run. The last line is the time of SHA-256 alone for the
//! same body.

mod measure;

use std::time::Instant;

use axum::Router;
use axum::routing::post;
use axum_idem::{FingerprintDigest, Idempotency};
use measure::contenders::{
    Contender, LONGEST_ANSWER, SAME_KEY, bare, body, minimum, protected_handler, wide_store,
};
use measure::{line, ratios, setting, shown};
use sha2::{Digest, Sha256};

const SIZES: [usize; 4] = [200, 2 << 10, 16 << 10, 1 << 20];

/// The number of body bytes of one path in a round, and the highest number of requests.
const BYTES: usize = 4 << 20;
const REQUESTS: usize = 200;

fn by(digest: FingerprintDigest) -> Router {
    let idem = Idempotency::builder()
        .store(wide_store())
        .max_recorded_body(LONGEST_ANSWER)
        .fingerprint_digest(digest)
        .build();
    Router::new()
        .route("/trades", post(protected_handler))
        .layer(idem)
}

fn contenders() -> [Contender; 7] {
    let sha_256 = || by(FingerprintDigest::Sha256);
    let blake3 = || by(FingerprintDigest::Blake3);
    [
        Contender::new("bare", bare(), Some),
        Contender::new("first sight, SHA-256", sha_256(), Some),
        Contender::new("first sight, BLAKE3", blake3(), Some),
        Contender::new("first sight, minimum", minimum(), Some),
        Contender::new("replay, SHA-256", sha_256(), SAME_KEY),
        Contender::new("replay, BLAKE3", blake3(), SAME_KEY),
        Contender::new("replay, minimum", minimum(), SAME_KEY),
    ]
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for size in SIZES {
        let (body, contenders) = (body(size), contenders());
        let requests = (BYTES / size).min(REQUESTS) as u64;
        let mut times: Vec<Vec<f64>> = contenders.iter().map(|_| Vec::new()).collect();
        let mut digest = Vec::new();
        for round in 0..=setting("ROUNDS", 100) {
            for (contender, times) in contenders.iter().zip(&mut times) {
                let numbers = round * requests..(round + 1) * requests;
                let requests = contender.requests(numbers, &body);
                let begun = Instant::now();
                for request in requests {
                    contender.serve(request).await;
                }
                times.push(begun.elapsed().as_secs_f64());
            }
            let begun = Instant::now();
            for _ in 0..requests {
                std::hint::black_box(Sha256::digest(body.as_bytes()));
            }
            digest.push(begun.elapsed().as_secs_f64());
        }
        println!("{size} B, ratio to bare axum");
        for (contender, own) in contenders.iter().zip(&times).skip(1) {
            line(contender.name, &[shown(ratios(own, &times[0]))]);
        }
        line("SHA-256 alone", &[shown(ratios(&digest, &times[0]))]);
    }
}
