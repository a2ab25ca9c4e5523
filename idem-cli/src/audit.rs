//! Writes down who changed what, and why.

use std::fs::{File, OpenOptions};
use std::io::{self, Write, stderr};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::arguments::Audit;
use crate::failure::Failure;
use crate::output::text::json_line;
use crate::output::time::timestamp;

/// The audit log. It is opened before anything is changed. Each call has two lines: one before the call, so that a program
/// that is killed during the call leaves a line, and one with the result.
pub(crate) struct Log<'a> {
    file: Option<File>,
    reason: &'a str,
}

/// A call whose first line is in the log.
#[must_use = "the result of the call is not in the log"]
pub(crate) struct Call {
    action: &'static str,
    subject: String,
    /// What was decided: an object.
    decision: Value,
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

    /// Writes the line before a call. `subject` is the id of a record or of a scope. When this fails, the call must not be
    /// made.
    pub(crate) fn begin(
        &mut self,
        action: &'static str,
        subject: String,
        decision: Value,
    ) -> Result<Call, Failure> {
        let call = Call {
            action,
            subject,
            decision,
        };
        match self.append(&call, "begun") {
            Ok(()) => Ok(call),
            Err(error) => Err(Failure::Unlogged {
                subject: call.subject,
                error,
            }),
        }
    }

    /// Writes the line after a call.
    #[expect(clippy::needless_pass_by_value, reason = "a call ends once")]
    pub(crate) fn end(&mut self, call: Call, result: &str) -> Result<(), Failure> {
        self.append(&call, result).map_err(Failure::Audit)
    }

    /// Writes one line of JSON. The file comes first, because the reader of the standard error may have gone.
    fn append(&mut self, call: &Call, result: &str) -> io::Result<()> {
        let user = ["SUDO_USER", "USER", "LOGNAME"];
        let user = user.iter().find_map(|name| std::env::var(name).ok());
        let mut line = json!({
            "time": timestamp(SystemTime::now()),
            "user": user,
            // Distinguishes the lines of two operators who change the same record.
            "process": std::process::id(),
            "action": call.action,
            "subject": call.subject,
            "result": result,
            "reason": self.reason,
        });
        if let (Value::Object(line), Value::Object(decision)) = (&mut line, &call.decision) {
            line.extend(decision.clone());
        }
        let line = format!("{}\n", json_line(&line));
        let written = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => Ok(()),
        };
        let _ = stderr().write_all(line.as_bytes());
        written
    }
}
