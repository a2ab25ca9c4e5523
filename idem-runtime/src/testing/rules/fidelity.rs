//! Rule 9: a record comes back unchanged, and only under its own id.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::super::subject::{FIRST, LONG, Subject, claim, record};
use super::super::violation::{Violation, ensure, same, settled};
use crate::request::record_id::RecordId;
use crate::store::{Entry, Record, Settled};

const RULE: u8 = 9;

pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    for kept in records() {
        let won = subject.hold(RULE).await?;
        let completed = subject.store.complete(won.holder, kept.clone(), LONG).await;
        settled(RULE, Settled::Done, completed)?;
        let replay = subject.replay(RULE, won.holder.id).await?;
        ensure(RULE, replay.as_bytes() == kept.as_bytes(), || {
            format!("{kept:?} was replayed as {replay:?}")
        })?;
        match subject.entry(RULE, won.holder.id).await? {
            Some(Entry::Recorded { record, .. }) => same(RULE, "look_up", &kept, &record)?,
            entry => same(RULE, "look_up", &"a record", &format!("{entry:?}").as_str())?,
        }
    }
    neighbours(subject).await
}

/// Ids that differ in one bit, or that contain bytes with a special meaning for some engine.
async fn neighbours(subject: &Subject) -> Result<(), Violation> {
    let base = *subject.id().as_bytes();
    let mut ids = vec![base];
    for (at, byte) in [
        (0, base[0] ^ 1),
        (31, base[31] ^ 1),
        (15, 0),
        (15, b'\''),
        (15, b'*'),
        (15, b'{'),
        (15, b'}'),
        (15, b'%'),
        (15, b'\\'),
        (15, b'\n'),
        (15, 0xff),
    ] {
        let mut id = base;
        id[at] = byte;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let mut holders = Vec::new();
    for id in &ids {
        let id = RecordId::from_bytes(*id);
        holders.push(subject.win(RULE, claim(id, LONG)).await?.holder);
    }
    for (number, holder) in holders.iter().enumerate() {
        let kept = record(&format!("neighbour-{number}"));
        let completed = subject.store.complete(*holder, kept, LONG).await;
        settled(RULE, Settled::Done, completed)?;
    }
    for (number, holder) in holders.iter().enumerate() {
        let kept = record(&format!("neighbour-{number}"));
        let replay = subject.replay(RULE, holder.id).await?;
        same(RULE, "a replay next to similar ids", &kept, &replay)?;
    }
    Ok(())
}

fn records() -> Vec<Record> {
    let mut many = HeaderMap::new();
    for number in 0..200 {
        let name = HeaderName::try_from(format!("x-{}", number / 2)).expect("a token");
        many.append(name, HeaderValue::from(number));
    }
    let text: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != 0x7f).collect();
    many.insert("x-text", HeaderValue::from_bytes(&text).expect("obs-text"));

    let every_byte: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
    let record = |headers: &HeaderMap, body: &[u8]| {
        Record::answer(FIRST, StatusCode::CREATED, headers, body).expect("it fits")
    };
    vec![
        record(&HeaderMap::new(), b""),
        record(&HeaderMap::new(), b"\0"),
        record(
            &HeaderMap::new(),
            b"'; drop table idem; --\r\n$3\r\n{tag}%s",
        ),
        record(&many, &every_byte),
        record(&many, &every_byte.repeat(16)),
        Record::not_kept(FIRST, StatusCode::ACCEPTED),
    ]
}
