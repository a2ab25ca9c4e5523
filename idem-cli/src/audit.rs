//! Writes down who changed what, and why.

use std::fs::{File, OpenOptions};
use std::io::{Write, stderr};
use std::time::SystemTime;

use serde_json::json;

use crate::arguments::Audit;
use crate::failure::Failure;
use crate::output::text::json_line;
use crate::output::time::timestamp;

/// The audit log. It is opened before anything is changed, so that no change goes unrecorded.
pub(crate) struct Log<'a> {
    file: Option<File>,
    reason: &'a str,
}

impl<'a> Log<'a> {
    pub(crate) fn open(audit: &'a Audit) -> Result<Self, Failure> {
        if audit.reason.trim().is_empty() {
            return Err(Failure::Usage("`--reason` is empty; say why".into()));
        }
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let file = audit.audit_log.as_ref().map(open).transpose();
        let file = file.map_err(|error| {
            Failure::Usage(format!(
                "nothing was changed, because the audit log cannot be opened: {error}"
            ))
        })?;
        Ok(Self {
            file,
            reason: &audit.reason,
        })
    }

    /// Writes one line of JSON. `subject` is the id of a record or of a scope. The file comes first, because the reader
    /// of the standard error may have gone.
    #[must_use = "the line may be missing in the file"]
    pub(crate) fn write(
        &mut self,
        action: &str,
        subject: &str,
        result: &str,
    ) -> Result<(), Failure> {
        let user = ["SUDO_USER", "USER", "LOGNAME"];
        let user = user.iter().find_map(|name| std::env::var(name).ok());
        let line = json!({
            "time": timestamp(SystemTime::now()),
            "user": user,
            "action": action,
            "subject": subject,
            "result": result,
            "reason": self.reason,
        });
        let line = format!("{}\n", json_line(&line));
        let written = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => Ok(()),
        };
        let _ = stderr().write_all(line.as_bytes());
        written.map_err(Failure::Audit)
    }
}
