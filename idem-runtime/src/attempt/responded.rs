//! Decides how the response of a handler settles its attempt, and reads the body that is recorded.

use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, StatusCode};

use crate::attempt::commit_error;
use crate::attempt::ending::Ending;
use crate::attempt::settlement::Settlement;
use crate::attempt::work::{Reading, Stage, Work};
use crate::response::collect::{self, Collected, Collector, Patience};
use crate::store::Record;

impl Work {
    /// Decides whether the response of the handler is recorded, and whether its body must be read
    /// for that.
    pub(super) fn responded(&mut self, mut response: Response, cx: &mut Context<'_>) -> Stage {
        self.heartbeat.lift_limit();
        let by_handler = self.settled_by_handler();
        commit_error::name_record(&mut response, self.holder.id, by_handler.as_ref());
        let ending = Ending::of(self.policy, &mut response);
        let settlement = match ending {
            _ if by_handler.is_some() => by_handler,
            Ending::Unknown => return self.settling(Settlement::Abandon, response),
            Ending::Released => Some(Settlement::Release),
            Ending::Recorded => None,
        };
        self.status = Some(response.status());
        if let Some(settlement) = settlement {
            let response = response.map(|body| self.watched(body));
            return self.settling(settlement, response);
        }
        let settings = self.idem.settings();
        if !self.policy.records_body {
            let settlement = self.record(response.status(), response.headers(), &Bytes::new());
            let response = response.map(|body| self.watched(body));
            return self.settling(settlement, response);
        }
        let limit = settings.max_recorded_body;
        let announced = collect::announced_len(&response);
        if collect::cannot_be_kept(&response, announced, limit) {
            let settlement = self.not_kept(response.status());
            let response = response.map(|body| self.watched(body));
            return self.settling(settlement, response);
        }
        let (parts, mut body) = response.into_parts();
        let patience = Patience {
            known: self.policy.max_run.unwrap_or(settings.max_run),
            unknown: settings.response_timeout,
        };
        let mut collector = Collector::new(announced, limit, patience);
        // Most bodies are complete already. Measured: a stage for them takes 400 instructions.
        match collector.poll(&mut body, cx) {
            Poll::Ready(collected) => self.collected(parts, collected),
            Poll::Pending => Stage::Reading(Box::new(Reading {
                parts,
                body,
                collector,
            })),
        }
    }

    /// Continues when the body of the response has been read, or as much of it as can be recorded.
    pub(super) fn collected(&mut self, parts: Parts, collected: Collected) -> Stage {
        match collected {
            Collected::Whole(body) => {
                let settlement = self.record(parts.status, &parts.headers, &body);
                let body = self.watched(Body::from(body));
                self.settling(settlement, Response::from_parts(parts, body))
            }
            Collected::NotKept(body) => {
                let settlement = self.not_kept(parts.status);
                let body = self.watched(body);
                self.settling(settlement, Response::from_parts(parts, body))
            }
        }
    }

    /// Returns how the attempt is settled when its handler may have recorded the response itself.
    fn settled_by_handler(&self) -> Option<Settlement> {
        self.attempt.commits().ok()??.settlement()
    }

    pub(super) fn without_run(&self) -> Settlement {
        Settlement::without_run(self.attempt.number())
    }

    fn record(&self, status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Settlement {
        let recording = self.idem.settings().recording(self.policy);
        self.complete(recording.record(self.fingerprint, status, headers, body))
    }

    fn complete(&self, record: Record) -> Settlement {
        Settlement::Complete {
            record,
            ttl: self.policy.ttl,
        }
    }

    pub(super) fn not_kept(&self, status: StatusCode) -> Settlement {
        self.complete(Record::not_kept(self.fingerprint, status))
    }
}
