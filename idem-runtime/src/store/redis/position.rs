//! Where a listing is, and the cursor that says so.

use std::collections::VecDeque;

use bytes::{Buf, BufMut};

use crate::request::record_id::RecordId;
use crate::store::{Cursor, StoreError};

/// How many ids a cursor remembers.
const REMEMBERED: usize = 128;

/// The version of a cursor.
const VERSION: u8 = 2;

/// Where a listing is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// How the slots were divided among the primaries when the listing began.
    pub(super) division: u64,
    /// The first slot of the primary that is scanned. The primaries are scanned in this order.
    pub(super) slot: u16,
    /// The process of that primary. `None` before the first scan there.
    pub(super) process: Option<u64>,
    /// The server's own cursor.
    pub(super) scan: u64,
    /// Whether the server has returned its last keys.
    pub(super) is_done: bool,
    /// Keys that were scanned and not listed yet.
    pub(super) pending: VecDeque<RecordId>,
    /// The last ids that were listed, by their last 8 bytes.
    listed: VecDeque<u64>,
}

impl Position {
    /// The position before the first key.
    pub(super) fn first(division: u64) -> Self {
        Self {
            division,
            ..Self::default()
        }
    }

    pub(super) fn read(cursor: &Cursor) -> Result<Self, StoreError> {
        Self::try_read(cursor.as_bytes()).ok_or(StoreError::InvalidCursor)
    }

    fn try_read(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let division = bytes.try_get_u64().ok()?;
        let slot = bytes.try_get_u16().ok()?;
        let process = bytes.try_get_u64().ok()?;
        let scan = bytes.try_get_u64().ok()?;
        let is_done = bytes.try_get_u8().ok()? == 1;
        let mut pending = VecDeque::new();
        for _ in 0..bytes.try_get_u16().ok()? {
            let mut id = [0; 32];
            bytes.try_copy_to_slice(&mut id).ok()?;
            pending.push_back(RecordId::from_bytes(id));
        }
        let mut listed = VecDeque::new();
        while bytes.has_remaining() {
            listed.push_back(bytes.try_get_u64().ok()?);
        }
        Some(Self {
            division,
            slot,
            process: (process > 0).then_some(process),
            scan,
            is_done,
            pending,
            listed,
        })
    }

    pub(super) fn cursor(&self) -> Cursor {
        let mut bytes = Vec::new();
        bytes.put_u8(VERSION);
        bytes.put_u64(self.division);
        bytes.put_u16(self.slot);
        bytes.put_u64(self.process.unwrap_or_default());
        bytes.put_u64(self.scan);
        bytes.put_u8(self.is_done.into());
        bytes.put_u16(u16::try_from(self.pending.len()).unwrap_or(u16::MAX));
        for id in &self.pending {
            bytes.put_slice(id.as_bytes());
        }
        for listed in &self.listed {
            bytes.put_u64(*listed);
        }
        Cursor::from_bytes(bytes)
    }

    /// Whether the listing has just shown this id.
    pub(super) fn was_listed(&self, id: &RecordId) -> bool {
        self.listed.contains(&mark(id))
    }

    pub(super) fn note(&mut self, id: &RecordId) {
        if self.listed.len() == REMEMBERED {
            self.listed.pop_front();
        }
        self.listed.push_back(mark(id));
    }

    /// Goes on with the primary of this slot, from its beginning.
    pub(super) fn go_to(&mut self, slot: u16) {
        self.slot = slot;
        self.process = None;
        self.scan = 0;
        self.is_done = false;
    }
}

fn mark(id: &RecordId) -> u64 {
    let (_, last) = id.as_bytes().split_last_chunk().expect("32 bytes");
    u64::from_be_bytes(*last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_from_its_cursor() {
        let id = |n| RecordId::from_bytes([n; 32]);
        let mut position = Position {
            division: 3,
            slot: 5461,
            process: Some(7),
            scan: u64::MAX,
            is_done: true,
            pending: [id(1), id(2)].into(),
            listed: VecDeque::new(),
        };
        for n in 0..=u8::MAX {
            position.note(&id(n));
        }
        assert_eq!(position.listed.len(), REMEMBERED);
        assert!(position.was_listed(&id(255)) && !position.was_listed(&id(1)));
        let read = Position::read(&position.cursor());
        assert_eq!(read.expect("a cursor of this store"), position);
        for bytes in [&[][..], &[9; 40], &position.cursor().as_bytes()[..30]] {
            let read = Position::read(&Cursor::from_bytes(bytes));
            assert!(matches!(read, Err(StoreError::InvalidCursor)), "{bytes:?}");
        }
    }
}
