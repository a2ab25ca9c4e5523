//! Nonces for sealed records.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::request::record_id::RecordId;

pub(super) const NONCE: usize = 24;

/// How many nonces a thread gets from the system at a time. One call takes as long as the encryption of a response of 300
/// bytes.
const AT_ONCE: usize = 32;

/// Random bytes of the system that no nonce has used.
struct Unused {
    bytes: [u8; AT_ONCE * NONCE],
    len: usize,
}

impl Unused {
    const fn new() -> Self {
        Self {
            bytes: [0; AT_ONCE * NONCE],
            len: 0,
        }
    }

    /// Takes the last bytes.
    fn take(&mut self) -> Result<[u8; NONCE], getrandom::Error> {
        if self.len == 0 {
            getrandom::fill(&mut self.bytes)?;
            self.len = self.bytes.len();
        }
        self.len -= NONCE;
        let mut taken = [0; NONCE];
        taken.copy_from_slice(&self.bytes[self.len..self.len + NONCE]);
        Ok(taken)
    }
}

/// Returns 192 random bits, which no other record has.
///
/// A fork or a copy of a virtual machine also copies the bytes that are not used yet. So the record id and the time are mixed
/// in. The bits stay random, and the copies use the same nonce only if they seal a response of the same key at the same nanosecond.
///
/// # Errors
///
/// When the system has no random bytes.
pub(super) fn next(id: RecordId) -> Result<[u8; NONCE], getrandom::Error> {
    thread_local! {
        static UNUSED: RefCell<Unused> = const { RefCell::new(Unused::new()) };
    }
    let random = UNUSED.with_borrow_mut(Unused::take)?;
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(mixed(random, id, time.unwrap_or_default().as_nanos()))
}

/// The last bytes of a record id are those of its key.
fn mixed(mut nonce: [u8; NONCE], id: RecordId, nanos: u128) -> [u8; NONCE] {
    let time = nanos.to_le_bytes().into_iter().take(NONCE - 16);
    let mix = id.as_bytes().iter().rev().take(16).copied().chain(time);
    for (byte, mix) in nonce.iter_mut().zip(mix) {
        *byte ^= mix;
    }
    nonce
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const ID: RecordId = RecordId::from_bytes([3; 32]);

    #[test]
    fn each_nonce_has_bytes_of_its_own() {
        let mut unused = Unused::new();
        let taken: HashSet<_> = (0..4 * AT_ONCE)
            .map(|_| unused.take().expect("random bytes"))
            .collect();
        assert_eq!(taken.len(), 4 * AT_ONCE);
        assert!(!taken.contains(&[0; NONCE]));
    }

    #[test]
    fn each_thread_has_bytes_of_its_own() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let nonces = (0..AT_ONCE).map(|_| next(ID).expect("a nonce"));
                    nonces.map(|nonce| nonce[..16].to_vec()).collect()
                })
            })
            .collect();
        let nonces: Vec<Vec<_>> = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect();
        let all: HashSet<_> = nonces.into_iter().flatten().collect();
        assert_eq!(all.len(), 4 * AT_ONCE);
    }

    /// As after a fork.
    #[test]
    fn with_the_same_bytes_another_key_and_another_time_give_another_nonce() {
        let nonce = mixed([7; NONCE], ID, 1);
        let mut other = *ID.as_bytes();
        other[31] = 4;
        assert_ne!(mixed([7; NONCE], RecordId::from_bytes(other), 1), nonce);
        assert_ne!(mixed([7; NONCE], ID, 2), nonce);
    }
}
