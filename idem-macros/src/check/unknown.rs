//! Checks that the arguments about recording do not contradict each other.

use crate::messages::mistakes::Mistakes;
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::fingerprint::Fingerprint;
use crate::parse::statuses::{Status, Statuses};

/// Reports every contradiction.
pub(crate) fn check(args: &AttributeArgs, mistakes: &mut Mistakes) {
    check_rejections(args, mistakes);
    check_successes(args, mistakes);
    check_both_lists(args, mistakes);
}

/// A streamed body may have been cut off, so the runtime never records its rejection.
fn check_rejections(args: &AttributeArgs, mistakes: &mut Mistakes) {
    if let (Some(word), Some(Fingerprint::None)) = (&args.record_rejections, &args.fingerprint) {
        mistakes.at(
            word,
            "`record_rejections` has no effect with `fingerprint = none`, because the rejection of a streamed body \
             is never recorded; remove one of them",
        );
    }
}

/// Reports the class `2xx` in `unknown`, unless `record` contains the code of a success.
fn check_successes(args: &AttributeArgs, mistakes: &mut Mistakes) {
    const SUCCESSES: Status = Status::Class(2);
    let unknown = args.unknown.iter().flat_map(Statuses::listed);
    let mut recorded = args.record.iter().flat_map(Statuses::listed);
    let is_success = |status| matches!(status, Status::Code(200..300)) || status == SUCCESSES;
    // The class in both lists has its own mistake.
    if recorded.any(|recorded| is_success(recorded.status)) {
        return;
    }
    for unknown in unknown.filter(|unknown| unknown.status == SUCCESSES) {
        mistakes.at_span(
            unknown.span,
            "with `2xx` in `unknown`, no success is ever recorded; list the codes of an unknown outcome, such as `504`",
        );
    }
}

/// Reports each item of `unknown` that is also an item of `record`.
///
/// A code in one list and its class in the other list is no mistake: the code is more specific.
fn check_both_lists(args: &AttributeArgs, mistakes: &mut Mistakes) {
    let (Some(unknown), Some(record)) = (&args.unknown, &args.record) else {
        return;
    };
    // An item that changes nothing is reported already.
    if unknown.has_needless() || record.has_needless() {
        return;
    }
    let is_recorded = |status| {
        let mut listed = record.listed().iter();
        listed.any(|recorded| recorded.status == status)
    };
    for unknown in Statuses::listed(unknown) {
        let status = unknown.status;
        if is_recorded(status) {
            mistakes.at_span(
                unknown.span,
                format!(
                    "`{status}` is in `record` too, and a response is either recorded or of unknown \
                     outcome; keep `{status}` in one of the two lists"
                ),
            );
        }
    }
}
