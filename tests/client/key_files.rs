//! The store in the documentation of `KeyStore`. A test compares the two.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use idem_client::{KeyFuture, KeyStore};

pub struct KeyFiles(pub PathBuf);

impl KeyFiles {
    /// Writes the key to a second file and links it, so that a crash leaves no half-written key.
    fn keep(&self, operation: &str, fresh: &str) -> std::io::Result<String> {
        let name = operation.bytes().map(|byte| format!("{byte:02x}"));
        let path = self.0.join(name.collect::<String>());
        let draft = self.0.join(format!("{fresh}.draft"));
        let mut file = File::create_new(&draft)?;
        file.write_all(fresh.as_bytes())?;
        file.sync_all()?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft)?;
        match linked {
            // The call that has linked the file may not have synced the folder yet.
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(&self.0)?.sync_all()?,
        }
        fs::read_to_string(path)
    }
}

impl KeyStore for KeyFiles {
    fn key<'a>(&'a self, operation: &'a str, fresh: String) -> KeyFuture<'a> {
        Box::pin(async move { Ok(self.keep(operation, &fresh)?) })
    }
}
