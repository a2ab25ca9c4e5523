//! Which files a loss of power can leave.

use std::collections::BTreeMap;

use crate::Event;

/// The name and the content of each file.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a disk keeps of the writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// Everything, as after a kill of the process.
    Everything,
    /// Whole writes, chosen at random by this seed.
    SomeWrites(u64),
    /// Single sectors, chosen at random by this seed.
    SomeSectors(u64),
}

const SECTOR: usize = 512;

/// One file on the disk.
#[derive(Default)]
struct File {
    /// The content that no loss of power changes. `None` when the name may be lost too.
    durable: Option<Vec<u8>>,
    /// The changes since the last sync.
    pending: Vec<Change>,
    /// The file was removed, but its folder was not synced.
    is_removed: bool,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Truncate(size) => content.resize(*size, 0),
        }
    }

    /// The parts of a write that a disk keeps or loses as one.
    fn sectors(self) -> Vec<Self> {
        match self {
            Self::Write(at, bytes) => {
                let first = SECTOR - at % SECTOR;
                let (first, rest) = bytes.split_at(first.min(bytes.len()));
                let mut parts = vec![Self::Write(at, first.to_vec())];
                let after = at + first.len();
                parts.extend(
                    rest.chunks(SECTOR)
                        .enumerate()
                        .map(|(number, part)| Self::Write(after + number * SECTOR, part.to_vec())),
                );
                parts
            }
            Self::Truncate(_) => vec![self],
        }
    }
}

pub(crate) fn files(events: &[Event], kept: Kept) -> Files {
    let mut disk: BTreeMap<&str, File> = BTreeMap::new();
    for event in events {
        match event {
            Event::Write { file, at, bytes } => {
                let file = written(&mut disk, file);
                file.pending.push(Change::Write(*at, bytes.clone()));
            }
            Event::Truncate { file, size } => {
                let file = written(&mut disk, file);
                file.pending.push(Change::Truncate(*size));
            }
            Event::Sync { file } => {
                let file = written(&mut disk, file);
                let is_new = file.durable.is_none();
                let content = file.durable.get_or_insert_default();
                for change in file.pending.drain(..) {
                    change.apply(content);
                }
                if is_new {
                    // SQLite syncs the folder together with a new file.
                    disk.retain(|_, file| !file.is_removed);
                }
            }
            Event::Remove { file } => {
                if let Some(file) = disk.get_mut(file.as_str()) {
                    file.is_removed = true;
                }
            }
        }
    }
    let mut random = match kept {
        Kept::SomeWrites(seed) | Kept::SomeSectors(seed) => fastrand::Rng::with_seed(seed),
        Kept::Nothing | Kept::Everything => fastrand::Rng::with_seed(0),
    };
    let mut keeps = || match kept {
        Kept::Nothing => false,
        Kept::Everything => true,
        Kept::SomeWrites(_) | Kept::SomeSectors(_) => random.bool(),
    };
    let mut files = Files::new();
    for (name, file) in disk {
        if file.is_removed && keeps() {
            continue;
        }
        let mut content = file.durable;
        for change in file.pending {
            let parts = match kept {
                Kept::SomeSectors(_) => change.sectors(),
                _ => vec![change],
            };
            for part in parts.iter().filter(|_| keeps()) {
                part.apply(content.get_or_insert_default());
            }
        }
        if let Some(content) = content {
            files.insert(name.to_owned(), content);
        }
    }
    files
}

/// The file with this name. A removed file that is written is a new file.
fn written<'a, 'b>(disk: &'b mut BTreeMap<&'a str, File>, name: &'a str) -> &'b mut File {
    let file = disk.entry(name).or_default();
    if file.is_removed {
        *file = File::default();
    }
    file
}
