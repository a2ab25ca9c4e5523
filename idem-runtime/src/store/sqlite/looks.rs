//! Reads the rows under the ids of new claims, while the writer works.

use sqlx::sqlite::SqliteConnection;

use super::Inner;
use super::row::{Held, Look, column};
use super::transition::{Failed, blob, chunks, held, query};
use crate::request::record_id::RecordId;

impl Inner {
    /// Reads the row under an id. While all readers are busy, callers line up and read together.
    pub(super) async fn held(&self, id: RecordId) -> Look {
        if let Some(_lane) = self.looks.lane() {
            return self.held_alone(id).await;
        }
        match self.looks.run(id, |ids| self.held_all(ids)).await {
            Some(look) => look,
            None => self.held_alone(id).await,
        }
    }

    async fn held_alone(&self, id: RecordId) -> Look {
        let read = async |connection: &mut _, now| -> Result<_, Failed> {
            Ok((held(connection, &self.statements, id).await?, now))
        };
        Ok(self.readers.read(read).await?)
    }

    /// The rows under these ids, in their order. After a failure, each caller reads alone.
    async fn held_all(&self, ids: Vec<RecordId>) -> Vec<Option<Look>> {
        let read = async |connection: &mut SqliteConnection, now| -> Result<_, sqlx::Error> {
            let mut looks: Vec<_> = ids.iter().map(|_| Some(Ok((None, now)))).collect();
            for (from, ids) in chunks(&ids) {
                let mut look = query(self.statements.looks.of(ids.len()));
                for id in ids {
                    look = look.bind(blob(id.as_bytes()));
                }
                for row in look.fetch_all(&mut *connection).await? {
                    let id: Result<&[u8], _> = column(&row, Held::COLUMNS);
                    for (at, wanted) in ids.iter().enumerate() {
                        if matches!(id, Ok(id) if id == wanted.as_bytes()) {
                            looks[from + at] = Some(Held::read(&row).map(|held| (Some(held), now)));
                        }
                    }
                }
            }
            Ok(looks)
        };
        self.readers.read(read).await.unwrap_or_default()
    }
}
