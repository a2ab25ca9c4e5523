//! The payment gateway of the examples, whose card network times out.

use crate::examples::gateway;

#[tokio::test]
async fn each_payment_is_at_most_one_charge_and_its_retries_learn_its_outcome() {
    let story = gateway::story().await.expect("memory does not fail");
    let expected = [
        "/payments charged: 504 the card network did not respond in time",
        "/payments charged: 409 idempotency_outcome_unknown",
        "/payments not-charged: 504 the card network did not respond in time",
        "reconciled 2 payments",
        "/payments charged: 201 paid, receipt 1 (replay)",
        "/payments not-charged: 402 not charged; pay again under a new key (replay)",
        "/instant-payments instant: 504 ",
        "/instant-payments instant: 201 paid, receipt 2",
        "/instant-payments instant: 201 paid, receipt 2 (replay)",
        "2 charges",
    ];
    assert_eq!(story, expected);
}
