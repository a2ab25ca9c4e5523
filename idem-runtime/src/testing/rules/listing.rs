//! Rule 10 for many records: what an operator lists, counts and forgets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::subject::{LONG, Running, Subject, Won, claim, record, timed};
use super::super::violation::{Under, Violation, broken, ensure, same, settled};
use crate::request::record_id::{RecordId, ShortId};
use crate::request::scope_id::ScopeId;
use crate::request::trace_context::TraceId;
use crate::store::{
    Claim, Cursor, Entry, OnUnknown, Origin, Page, Query, Record, Settled, State, StateKind,
    StoreError, Summary,
};

const RULE: u8 = 10;

/// More pages than any listing of this suite has, also of a store that lists nothing at a time.
const MOST_PAGES: usize = 100_000;

/// Checks what the store supports. A store may support none of it.
pub(super) async fn run(subject: &Subject) -> Result<(), Violation> {
    origin(subject).await?;
    match subject.store.list(Query::all().limit(1)).await {
        Err(StoreError::Unsupported) => {}
        other => {
            other.under(RULE)?;
            filters(subject).await?;
            pages(subject).await?;
            expired(subject).await?;
        }
    }
    match subject.store.stats().await {
        Err(StoreError::Unsupported) => {}
        stats => {
            stats.under(RULE)?;
            stats_count(subject).await?;
        }
    }
    match subject.store.forget_scope(subject.id().scope_id()).await {
        Err(StoreError::Unsupported) => Ok(()),
        nothing => {
            same(RULE, "forget_scope of nothing", &0, &nothing.under(RULE)?)?;
            forget_scope(subject).await
        }
    }
}

/// A claim by a request of which an operator learns everything.
fn of_origin(id: RecordId, origin: &Origin) -> Claim {
    let mut claim = claim(id, LONG);
    claim.origin = origin.clone();
    claim
}

fn new_origin(subject: &Subject) -> Origin {
    let unique = subject.id();
    let mut trace_id = [0; 16];
    trace_id.copy_from_slice(&unique.as_bytes()[..16]);
    Origin::new(format!("contract::{}", unique.scope_id()))
        .with_trace_id(TraceId::from_bytes(trace_id))
        .with_label(Some(Arc::from(format!(
            "label of {}, größer",
            unique.short()
        ))))
}

/// Ids of one scope.
fn ids_of_scope<const N: usize>(subject: &Subject) -> [RecordId; N] {
    let scope = subject.id().scope_id();
    std::array::from_fn(|_| in_scope(subject, scope))
}

fn in_scope(subject: &Subject, scope: ScopeId) -> RecordId {
    let mut key = [0; 16];
    key.copy_from_slice(&subject.id().as_bytes()[..16]);
    RecordId::from_halves(scope, key)
}

/// The origin and the time of creation stay those of the first attempt.
async fn origin(subject: &Subject) -> Result<(), Violation> {
    let (first, second) = (new_origin(subject), new_origin(subject));
    let id = subject.id();
    let won = subject.win(RULE, of_origin(id, &first)).await?;
    let claimed = subject.shown(id).await?;
    same(RULE, "the origin of a claim", &first, claimed.origin())?;
    let created_at = claimed.created_at();

    subject.abandon(RULE, won.holder, LONG).await?;
    let won = subject.win(RULE, of_origin(id, &second)).await?;
    same(RULE, "the attempt of a takeover", &2, &won.attempt)?;
    let taken_over = subject.shown(id).await?;
    same(
        RULE,
        "the origin of a takeover",
        &first,
        taken_over.origin(),
    )?;
    let what = "the time of creation after a takeover";
    same(RULE, what, &created_at, &taken_over.created_at())?;

    subject
        .complete(RULE, won.holder, record("origin"), LONG)
        .await?;
    let recorded = subject.shown(id).await?;
    same(RULE, "the origin of a record", &first, recorded.origin())?;
    let what = "the time of creation of a record";
    same(RULE, what, &created_at, &recorded.created_at())?;
    is_settled_after_creation(&recorded)?;

    // A new life has an origin of its own.
    subject.store.forget(id).await.under(RULE)?;
    let won = subject.win(RULE, of_origin(id, &second)).await?;
    let anew = subject.shown(id).await?;
    same(
        RULE,
        "the origin after being forgotten",
        &second,
        anew.origin(),
    )?;
    subject.abandon(RULE, won.holder, LONG).await?;
    let unknown = subject.shown(id).await?;
    same(
        RULE,
        "the origin of an unknown outcome",
        &second,
        unknown.origin(),
    )?;
    let resolved = subject
        .store
        .resolve(id, won.holder.fence, record("by-hand"), LONG);
    settled(RULE, Settled::Done, resolved.await)?;
    let resolved = subject.shown(id).await?;
    same(
        RULE,
        "the origin of a resolved record",
        &second,
        resolved.origin(),
    )?;
    is_settled_after_creation(&resolved)
}

fn is_settled_after_creation(entry: &Entry) -> Result<(), Violation> {
    match entry {
        Entry::Recorded {
            created_at,
            settled_at,
            ..
        } => ensure(RULE, created_at <= settled_at, || {
            format!("a record of {created_at:?} is said to be settled at {settled_at:?}")
        }),
        entry => broken(RULE, format!("a record is shown as {entry:?}")),
    }
}

/// Every filter lets through what it should, and nothing else.
async fn filters(subject: &Subject) -> Result<(), Violation> {
    let of_one = new_origin(subject);
    let [in_flight, unknown, recorded, released] = ids_of_scope(subject);
    let scope = in_flight.scope_id();
    let held = subject.win(RULE, of_origin(in_flight, &of_one)).await?;
    let lapsed = subject.win(RULE, of_origin(unknown, &of_one)).await?;
    let retained = subject.abandon(RULE, lapsed.holder, LONG).await?;
    let done = subject.win(RULE, of_origin(recorded, &of_one)).await?;
    let kept = record("listed");
    let lives = subject
        .complete(RULE, done.holder, kept.clone(), LONG)
        .await?;
    let gone = subject.win(RULE, of_origin(released, &of_one)).await?;
    settled(
        RULE,
        Settled::Done,
        subject.store.release(gone.holder).await,
    )?;
    // Another request of another caller.
    subject.hold(RULE).await?;

    let all = [in_flight, unknown, recorded];
    let of_scope = || Query::all().scope(scope);
    lists(subject, "the scope", of_scope(), &all).await?;
    let of_endpoint = Query::all().endpoint(of_one.endpoint().to_owned());
    lists(subject, "the endpoint", of_endpoint, &all).await?;
    let other = new_origin(subject).endpoint().to_owned();
    lists(subject, "another endpoint", of_scope().endpoint(other), &[]).await?;
    for (kind, id) in [
        (StateKind::InFlight, in_flight),
        (StateKind::Unknown, unknown),
        (StateKind::Recorded, recorded),
    ] {
        let what = format!("the state {kind:?}");
        lists(subject, &what, of_scope().state(kind), &[id]).await?;
    }
    let every_unknown = listing(subject, Query::all().state(StateKind::Unknown)).await?;
    let wrong = every_unknown
        .values()
        .find(|it| it.state.kind() != StateKind::Unknown);
    ensure(
        RULE,
        every_unknown.contains_key(&unknown) && wrong.is_none(),
        || format!("a listing of unknown outcomes has {wrong:?}, or misses a record"),
    )?;
    for id in all {
        let of_short = Query::all().short(id.short());
        lists(subject, "the short id", of_short, &[id]).await?;
    }
    let nobody = ShortId::from_bytes([0; 6]);
    lists(subject, "another short id", of_scope().short(nobody), &[]).await?;
    let old = of_scope().older_than(2 * LONG);
    lists(subject, "an age that no record has", old, &[]).await?;
    let young = of_scope().older_than(std::time::Duration::ZERO);
    lists(subject, "no age at all", young, &all).await?;

    let found = listing(subject, of_scope()).await?;
    for id in all {
        let shown = subject.shown(id).await?;
        let listed = &found[&id];
        same(RULE, "a listed origin", shown.origin(), &listed.origin)?;
        let what = "a listed time of creation";
        same(RULE, what, &shown.created_at(), &listed.created_at)?;
    }
    let listed = Listed {
        held,
        lapsed,
        retained,
        recorded,
        kept,
        lives,
    };
    states(subject, of_scope(), listed).await
}

/// What a listing has to show.
struct Listed {
    held: Won,
    lapsed: Won,
    retained: Running,
    recorded: RecordId,
    kept: Record,
    lives: Running,
}

/// A listing shows what is known of each state.
async fn states(subject: &Subject, query: Query, listed: Listed) -> Result<(), Violation> {
    let Listed {
        held,
        lapsed,
        retained,
        recorded,
        kept,
        lives,
    } = listed;
    let asked_at = tokio::time::Instant::now();
    let found = listing(subject, query).await?;
    match found[&held.holder.id].state {
        State::InFlight {
            fence,
            attempt,
            lease_left,
        } => {
            let expected = (held.holder.fence, held.attempt);
            same(RULE, "a listed claim", &expected, &(fence, attempt))?;
            held.lease.has_left(RULE, "a lease", lease_left, asked_at)?;
        }
        ref state => return broken(RULE, format!("a claim is listed as {state:?}")),
    }
    match found[&lapsed.holder.id].state {
        State::Unknown {
            fence,
            attempt,
            retained_for,
        } => {
            let expected = (lapsed.holder.fence, lapsed.attempt);
            same(RULE, "an unknown outcome", &expected, &(fence, attempt))?;
            retained.has_left(RULE, "a retention", retained_for, asked_at)?;
        }
        ref state => return broken(RULE, format!("a lapsed claim is listed as {state:?}")),
    }
    match found[&recorded].state {
        State::Recorded {
            status,
            is_kept,
            bytes,
            expires_in,
            ..
        } => {
            let expected = (kept.status(), kept.is_kept(), kept.as_bytes().len() as u64);
            same(
                RULE,
                "a listed record",
                &expected,
                &(status, is_kept, bytes),
            )?;
            lives.expires_in(RULE, expires_in, asked_at)
        }
        ref state => broken(RULE, format!("a record is listed as {state:?}")),
    }
}

/// A record that is there from the first page to the last one is listed once, beside traffic.
async fn pages(subject: &Subject) -> Result<(), Violation> {
    const STAY: usize = 12;
    let stay: [RecordId; STAY] = ids_of_scope(subject);
    let scope = stay[0].scope_id();
    let mut claims = Vec::new();
    for id in stay {
        claims.push(subject.win(RULE, claim(id, LONG)).await?);
    }
    for limit in [1, 5] {
        let mut moving = claims.clone();
        let mut seen: BTreeMap<RecordId, usize> = BTreeMap::new();
        let mut query = Query::all().scope(scope).limit(limit);
        for page in 0.. {
            let Page { entries, next } = subject.store.list(query.clone()).await.under(RULE)?;
            ensure(RULE, entries.len() <= limit, || {
                format!("a page of at most {limit} has {} entries", entries.len())
            })?;
            for entry in &entries {
                *seen.entry(entry.id).or_default() += 1;
            }
            let Some(next) = next else { break };
            ensure(RULE, page < MOST_PAGES, || "a listing does not end".into())?;
            query = query.after(parsed(&next)?);
            if page < STAY {
                traffic(subject, scope, &mut moving).await?;
            }
        }
        for won in &claims {
            let times = seen.get(&won.holder.id).copied().unwrap_or_default();
            ensure(RULE, times == 1, || {
                format!("a record that stayed all the while is listed {times} times")
            })?;
        }
        claims = retaken(subject, &claims).await?;
    }
    Ok(())
}

/// What happens between two pages: a claim of those that stay changes its state, and others come and go.
async fn traffic(
    subject: &Subject,
    scope: ScopeId,
    moving: &mut Vec<Won>,
) -> Result<(), Violation> {
    if let Some(won) = moving.pop() {
        if moving.len().is_multiple_of(2) {
            subject
                .complete(RULE, won.holder, record("moved"), LONG)
                .await?;
        } else {
            subject.abandon(RULE, won.holder, LONG).await?;
        }
    }
    for _ in 0..3 {
        let passing = in_scope(subject, scope);
        let won = subject.win(RULE, claim(passing, LONG)).await?;
        let released = subject.store.release(won.holder).await;
        settled(RULE, Settled::Done, released)?;
        let passing = in_scope(subject, scope);
        subject.win(RULE, claim(passing, LONG)).await?;
        subject.store.forget(passing).await.under(RULE)?;
    }
    Ok(())
}

/// Claims again, on the same ids.
async fn retaken(subject: &Subject, claims: &[Won]) -> Result<Vec<Won>, Violation> {
    let mut again = Vec::new();
    for won in claims {
        subject.store.forget(won.holder.id).await.under(RULE)?;
        again.push(subject.win(RULE, claim(won.holder.id, LONG)).await?);
    }
    Ok(again)
}

/// An expired entry is not listed, also while it is still there.
async fn expired(subject: &Subject) -> Result<(), Violation> {
    let [recorded, unknown] = ids_of_scope(subject);
    let tick = subject.tick;
    let won = subject.win(RULE, claim(recorded, LONG)).await?;
    let lives = subject
        .complete(RULE, won.holder, record("expired"), tick)
        .await?;
    let mut forgotten = claim(unknown, LONG);
    forgotten.retention = tick;
    forgotten.on_unknown = OnUnknown::Hold;
    let won = subject.win(RULE, forgotten).await?;
    let (abandoned, retained) = timed(tick, || subject.store.abandon(won.holder)).await;
    settled(RULE, Settled::Done, abandoned)?;
    subject.pass_by(lives).await;
    subject.pass_by(retained).await;
    let of_scope = Query::all().scope(recorded.scope_id());
    lists(subject, "a scope that has expired", of_scope, &[]).await
}

/// The counts have what was added, where the store counts exactly. Others may use the store meanwhile, so
/// only much less is wrong.
async fn stats_count(subject: &Subject) -> Result<(), Violation> {
    let held = subject.hold(RULE).await?;
    subject.lapse(RULE).await?;
    let won = subject.hold(RULE).await?;
    subject
        .complete(RULE, won.holder, record("counted"), LONG)
        .await?;
    let stats = subject.store.stats().await.under(RULE)?;
    ensure(
        RULE,
        stats.in_flight.value > 0 && stats.unknown.value > 0,
        || format!("a store with claims in flight and unknown outcomes counts {stats:?}"),
    )?;
    subject.store.forget(held.holder.id).await.under(RULE)?;
    Ok(())
}

/// Nothing of a scope remains, and everything of its neighbours.
async fn forget_scope(subject: &Subject) -> Result<(), Violation> {
    let [in_flight, unknown, recorded] = ids_of_scope(subject);
    let scope = in_flight.scope_id();
    let neighbours = [neighbour(scope, -1), neighbour(scope, 1)].map(|scope| {
        let (first, last) = ([0; 16], [0xff; 16]);
        [first, last].map(|key| RecordId::from_halves(scope, key))
    });
    let mut beside = Vec::new();
    for id in neighbours.into_iter().flatten() {
        let won = subject.win(RULE, claim(id, LONG)).await?;
        let kept = subject.complete(RULE, won.holder, record("beside"), LONG);
        beside.push((id, kept.await?));
    }
    let held = subject.win(RULE, claim(in_flight, LONG)).await?;
    let lapsed = subject.win(RULE, claim(unknown, LONG)).await?;
    subject.abandon(RULE, lapsed.holder, LONG).await?;
    let done = subject.win(RULE, claim(recorded, LONG)).await?;
    subject
        .complete(RULE, done.holder, record("forgotten"), LONG)
        .await?;
    // A cache has seen it.
    subject.replay(RULE, recorded).await?;

    let forgotten = subject.store.forget_scope(scope).await.under(RULE)?;
    same(RULE, "forget_scope", &3, &forgotten)?;
    for id in [in_flight, unknown, recorded] {
        subject.is_gone(RULE, id, "a forgotten record").await?;
    }
    let again = subject.store.forget_scope(scope).await.under(RULE)?;
    same(RULE, "a second forget_scope", &0, &again)?;
    let late = subject.store.complete(held.holder, record("late"), LONG);
    settled(RULE, Settled::Lost, late.await)?;
    let won = subject.win(RULE, claim(recorded, LONG)).await?;
    same(RULE, "the attempt after being forgotten", &1, &won.attempt)?;
    let has_grown = won.holder.fence > done.holder.fence;
    ensure(RULE, has_grown, || {
        "a fence did not grow after its scope was forgotten".into()
    })?;
    for (id, lives) in beside {
        subject
            .is_recorded(RULE, id, &record("beside"), lives)
            .await?;
        subject.store.forget(id).await.under(RULE)?;
    }
    Ok(())
}

/// The scope id next to `scope`, so that a range which is one too long finds it.
fn neighbour(scope: ScopeId, step: i8) -> ScopeId {
    let number = u128::from_be_bytes(*scope.as_bytes());
    ScopeId::from_bytes(number.wrapping_add_signed(step.into()).to_be_bytes())
}

async fn lists(
    subject: &Subject,
    what: &str,
    query: Query,
    expected: &[RecordId],
) -> Result<(), Violation> {
    let found = listing(subject, query).await?;
    let mut expected = expected.to_vec();
    expected.sort();
    let found: Vec<_> = found.into_keys().collect();
    ensure(RULE, found == expected, || {
        format!("a listing by {what} has {found:?} instead of {expected:?}")
    })
}

/// All pages together. A record that is listed twice is a violation.
async fn listing(
    subject: &Subject,
    mut query: Query,
) -> Result<BTreeMap<RecordId, Summary>, Violation> {
    let mut found = BTreeMap::new();
    for _ in 0..MOST_PAGES {
        let Page { entries, next } = subject.store.list(query.clone()).await.under(RULE)?;
        for entry in entries {
            let id = entry.id;
            if found.insert(id, entry).is_some() {
                return broken(RULE, format!("{id:?} is listed twice"));
            }
        }
        match next {
            Some(next) => query = query.after(parsed(&next)?),
            None => return Ok(found),
        }
    }
    broken(RULE, "a listing does not end")
}

/// A cursor as it comes back from a URL.
fn parsed(cursor: &Cursor) -> Result<Cursor, Violation> {
    match cursor.to_string().parse() {
        Ok(parsed) if parsed == *cursor => Ok(parsed),
        _ => broken(RULE, format!("{cursor:?} is not read back from its text")),
    }
}

impl Subject {
    /// What an operator sees under an id that has an entry.
    async fn shown(&self, id: RecordId) -> Result<Entry, Violation> {
        match self.entry(RULE, id).await? {
            Some(entry) => Ok(entry),
            None => broken(RULE, "an entry is not shown"),
        }
    }
}
