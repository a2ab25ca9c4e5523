//! Measures what sealing costs in process: `cargo bench --bench sealing --features seal`.
//!
//! The paths with and without the seal are measured in turn, in many short rounds of one run (`ROUNDS`, 3000), so
//! that other work on the machine affects all paths equally. The output is the median of the ratios of all
//! rounds with its quartiles, the ratio of the fastest tenths of the rounds, which other work affects least, and the
//! time of the fastest tenth.
//!
//! The other lines of each size are the limit: the encryption alone (the key of one record, the cipher and the tag,
//! without a copy), and a request without the seal that encrypts or decrypts as many bytes right after. Such a request
//! also loads the code of the cipher again, as a sealed request does. `Sealed` cannot take less than this with its
//! cipher.

mod measure;

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use axum_idem::store::{Keys, Sealed};
use chacha20::{R20, hchacha};
use measure::contenders::{Contender, SAME_KEY, body, protected, wide_store};
use measure::{float, ratios, setting};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

/// The request bodies. The responses are about 100 bytes longer.
const SIZES: [usize; 2] = [200, 1 << 20];

/// The number of requests of one path in a round. A round is far shorter than a time slice of the scheduler.
const fn requests_of_a_round(size: usize) -> u64 {
    if size < 1 << 20 { 20 } else { 1 }
}

/// The keys of the first sights that encrypt right after.
const LIMIT: u64 = 1 << 40;

/// The encrypted part of a record, in addition to the response: the kind, the status, the lengths, and the header line.
const MORE: usize = 43;

fn sealed() -> axum::Router {
    protected(Sealed::around(
        wide_store(),
        Keys::new().primary(1, [1; 32]),
    ))
}

/// The key of one record, and the nonce that remains.
fn cipher() -> (LessSafeKey, Nonce) {
    let key: [u8; 32] =
        hchacha::<R20>(black_box(&[1; 32]).into(), black_box(&[5; 16]).into()).into();
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a key of 32 bytes");
    (LessSafeKey::new(key), Nonce::assume_unique_for_key([7; 12]))
}

/// The associated data of a record has this length.
fn associated_data() -> Aad<[u8; 87]> {
    Aad::from(black_box([3; 87]))
}

fn seal(text: &mut [u8]) -> Tag {
    let (key, nonce) = cipher();
    let tag = key.seal_in_place_separate_tag(nonce, associated_data(), text);
    tag.expect("the text is short enough")
}

fn open(text: &mut [u8], tag: Tag) {
    let (key, nonce) = cipher();
    let opened = key.open_in_place_separate_tag(nonce, associated_data(), tag, text, 0..);
    black_box(opened.expect("the text is authentic"));
}

/// Serves requests, and does something after each.
async fn requests(
    path: &Contender,
    numbers: Range<u64>,
    body: &str,
    mut after_each: impl FnMut(),
) -> f64 {
    let requests = path.requests(numbers, body);
    let begun = Instant::now();
    for request in requests {
        path.serve(request).await;
        after_each();
    }
    begun.elapsed().as_secs_f64()
}

/// Returns the times of sealing and of opening.
fn encryptions(texts: &mut [Vec<u8>]) -> [f64; 2] {
    let mut tags = Vec::with_capacity(texts.len());
    let begun = Instant::now();
    for text in &mut *texts {
        tags.push(seal(text));
    }
    let sealed = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    for (text, tag) in texts.iter_mut().zip(tags) {
        open(text, tag);
    }
    [sealed, begun.elapsed().as_secs_f64()]
}

fn fastest_tenth(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 10]
}

fn report(name: &str, own: &[f64], other: &[f64]) {
    let [low, ratio, high] = ratios(own, other);
    let fastest = fastest_tenth(own) / fastest_tenth(other);
    let time = Duration::from_secs_f64(fastest_tenth(own));
    println!("  {name:<34} {ratio:.3}  ({low:.3} to {high:.3})   {fastest:.3}  {time:.2?}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for size in SIZES {
        let body = body(size);
        let paths = [
            Contender::new("first sight", protected(wide_store()), Some),
            Contender::new("first sight, sealed", sealed(), Some),
            Contender::new("replay", protected(wide_store()), SAME_KEY),
            Contender::new("replay, sealed", sealed(), SAME_KEY),
        ];
        let count = requests_of_a_round(size);
        let rounds = setting("ROUNDS", 3_000);
        let rounds = if count == 1 { rounds / 20 } else { rounds };
        let mut texts: Vec<_> = (0..count).map(|_| vec![0; size + 100 + MORE]).collect();
        let mut times = vec![Vec::new(); paths.len() + 4];
        // The first round warms up.
        for round in 0..=rounds {
            let numbers = round * count..(round + 1) * count;
            let mut of_round = Vec::new();
            for path in &paths {
                of_round.push(requests(path, numbers.clone(), &body, || {}).await);
            }
            let mut tags = Vec::with_capacity(texts.len());
            let mut next = texts.iter_mut();
            let seal_next = || tags.extend(next.next().map(|text| seal(text)));
            let first_sights = numbers.start + LIMIT..numbers.end + LIMIT;
            of_round.push(requests(&paths[0], first_sights, &body, seal_next).await);
            let mut next = texts.iter_mut().zip(tags);
            let open_next = || {
                next.next()
                    .into_iter()
                    .for_each(|(text, tag)| open(text, tag));
            };
            of_round.push(requests(&paths[2], numbers, &body, open_next).await);
            of_round.extend(encryptions(&mut texts));
            if round > 0 {
                for (times, time) in times.iter_mut().zip(of_round) {
                    times.push(time / float(count));
                }
            }
        }
        let [
            first_sight,
            sealed_first_sight,
            replay,
            sealed_replay,
            first_sight_and_seal,
            replay_and_open,
            seal,
            open,
        ] = &times[..]
        else {
            unreachable!("four paths, two limits, and two encryptions");
        };
        println!(
            "request of {size} B: median of the ratios, quartiles, ratio and time of the fastest tenth"
        );
        report(
            "first sight, sealed / unsealed",
            sealed_first_sight,
            first_sight,
        );
        report("replay, sealed / unsealed", sealed_replay, replay);
        report(
            "first sight, then encryption",
            first_sight_and_seal,
            first_sight,
        );
        report("replay, then decryption", replay_and_open, replay);
        report("encryption alone / first sight", seal, first_sight);
        report("decryption alone / replay", open, replay);
    }
}
