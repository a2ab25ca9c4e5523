//! Reads the rows under the ids of new claims, while the writer works.

use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;

use super::Inner;
use super::row::{Held, Look, column};
use super::transition::{Failed, blob, chunks, held, query};
use crate::request::record_id::RecordId;
use crate::store::batch::{NoResult, Results};

impl Inner {
    /// Reads the row under an id. While all readers are busy, callers line up and read together.
    pub(super) async fn held(self: &Arc<Self>, id: RecordId) -> Look {
        if let Some(lane) = self.looks.lane() {
            let look = self.held_alone(id).await;
            lane.leave().await;
            return look;
        }
        let inner = self.clone();
        let look_all = async move |ids| inner.held_all(ids).await;
        match self.looks.run(id, look_all).await {
            Ok(look) => look,
            Err(_) => self.held_alone(id).await,
        }
    }

    async fn held_alone(&self, id: RecordId) -> Look {
        let read = async |connection: &mut _, now| -> Result<_, Failed> {
            Ok((held(connection, &self.statements, id).await?, now))
        };
        Ok(self.readers.read(read).await?)
    }

    /// The rows under these ids, in their order. After a failure, each caller reads alone.
    async fn held_all(&self, ids: Vec<RecordId>) -> Results<Look> {
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
        let looks = self.readers.read(read).await;
        looks.map_err(|_| NoResult::Ended)
    }
}
