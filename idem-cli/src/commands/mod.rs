//! The commands.

mod change;
mod look;
mod maintain;

use axum_idem::store::StoreError;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::stores::open;

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let shared = &arguments.shared;
    if let Command::Schema(schema) = &arguments.command {
        return maintain::schema(schema.database, shared);
    }
    let opened = match open(shared).await {
        // The checks of `connect` and `open` are a part of the verdict.
        Err(Failure::Store(StoreError::Unfit(why)))
            if matches!(arguments.command, Command::Doctor) =>
        {
            return maintain::refused(&why, shared.json);
        }
        opened => opened?,
    };
    let (idem, json) = (&opened.idem, shared.json);
    match &arguments.command {
        Command::List(list) => look::list(idem, list, json).await,
        Command::Show(show) => look::show(idem, show, json).await,
        Command::Find(find) => look::find(idem, find, json).await,
        Command::Resolve(resolve) => change::resolve(&opened, resolve, json).await,
        Command::Forget(forget) => change::forget(idem, forget, json).await,
        Command::ForgetScope(forget) => change::forget_scope(idem, forget, json).await,
        Command::Stats => maintain::stats(idem, json).await,
        Command::Sweep => maintain::sweep(&*opened.store, json).await,
        Command::Doctor => maintain::doctor(&opened, json).await,
        Command::Schema(_) => Ok(()),
    }
}
