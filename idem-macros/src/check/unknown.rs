//! Checks `unknown` against `record`.

use crate::messages::mistakes::Mistakes;
use crate::parse::attribute_args::AttributeArgs;
use crate::parse::statuses::Statuses;

/// Reports each item of `unknown` that is also an item of `record`.
///
/// A code in one list and its class in the other list is no mistake: the code is more specific.
pub(crate) fn check(args: &AttributeArgs, mistakes: &mut Mistakes) {
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
