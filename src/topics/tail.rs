//! The newest events, read once for all subscribers at the end of the log.

use super::excerpt::Excerpt;
use crate::event::budget::{Budget, Permit};
use crate::event::schemas::SchemaView;
use crate::store::commit_log::{Position, TypePatterns};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// A subscriber at the end of the log.
struct Joined {
    types: TypePatterns,
    schema: SchemaView,
    /// What was read behind this position has its types, in its form.
    from: Position,
    /// The version of the ring with which it joined.
    version: u64,
}

#[derive(Default)]
struct Ring {
    excerpts: VecDeque<(Arc<Excerpt>, Permit)>,
    bytes: usize,
    /// The ring has what members want of the stretch from here ...
    begin: Position,
    /// ... to here.
    end: Position,
    members: BTreeMap<u64, Joined>,
    next: u64,
    /// Raised when a subscriber joins.
    version: u64,
}

impl Ring {
    fn forget(&mut self, position: Position) {
        self.excerpts.clear();
        self.bytes = 0;
        (self.begin, self.end) = (position, position);
    }
}

/// What is to be read next.
#[derive(Debug, Clone)]
pub(super) struct ReadPlan {
    pub(super) after: Position,
    /// What any member wants.
    pub(super) types: TypePatterns,
    /// `Latest` if any member wants that.
    pub(super) schema: SchemaView,
    version: u64,
}

/// What a member finds.
pub(super) enum Found {
    /// Its position lies in this one.
    Excerpt(Arc<Excerpt>),
    /// There is nothing for it up to this position, which is the end.
    Nothing(Position),
    /// The ring does not go back to its position.
    Behind,
}

/// The ring of the newest events, bounded in bytes.
pub(super) struct Tail {
    ring: Mutex<Ring>,
    moved: watch::Sender<()>,
    changed: Notify,
    budget: Budget,
    limit: usize,
}

impl Tail {
    pub(super) fn new(budget: Budget, limit: usize) -> Self {
        Self {
            ring: Mutex::default(),
            moved: watch::Sender::new(()),
            changed: Notify::new(),
            budget,
            limit,
        }
    }

    /// A subscriber that has everything up to `cursor`, which is near the end of the log, takes part.
    pub(super) fn join(
        self: &Arc<Self>,
        types: TypePatterns,
        schema: SchemaView,
        cursor: Position,
    ) -> TailMember {
        let mut ring = self.ring.lock();
        if ring.members.is_empty() {
            // The reader has rested, so the ring may end far from here.
            ring.forget(cursor);
        }
        ring.version += 1;
        let id = ring.next;
        ring.next += 1;
        let joined = Joined {
            types,
            schema,
            from: ring.end,
            version: ring.version,
        };
        ring.members.insert(id, joined);
        drop(ring);
        self.changed.notify_one();
        TailMember {
            tail: Arc::clone(self),
            id,
            moved: self.moved.subscribe(),
        }
    }

    /// What to read, while there are members.
    pub(super) fn plan(&self) -> Option<ReadPlan> {
        let ring = self.ring.lock();
        if ring.members.is_empty() {
            return None;
        }
        // A member that wants all types has them all read.
        let wants_all = ring.members.values().any(|member| member.types.is_all());
        let types = match wants_all {
            true => TypePatterns::default(),
            false => {
                let wanted = ring.members.values().map(|member| member.types.to_vec());
                TypePatterns::new(wanted.flatten())
            }
        };
        let latest = SchemaView::Latest;
        let wants_latest = ring.members.values().any(|member| member.schema == latest);
        Some(ReadPlan {
            after: ring.end,
            types,
            schema: if wants_latest {
                latest
            } else {
                SchemaView::Sent
            },
            version: ring.version,
        })
    }

    /// Waits until a subscriber has joined or left since the last wait.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes in what was read by a plan.
    pub(super) fn extend(&self, plan: &ReadPlan, excerpt: Excerpt) {
        let mut ring = self.ring.lock();
        if !Self::advance(&mut ring, plan, excerpt.end) || excerpt.is_empty() {
            return;
        }
        let bytes = excerpt.bytes();
        // Bounded by the limit, so there is no waiting for room.
        let permit = self.budget.take(bytes);
        ring.bytes += bytes;
        ring.excerpts.push_back((Arc::new(excerpt), permit));
        while ring.bytes > self.limit
            && let Some((oldest, _)) = ring.excerpts.pop_front()
        {
            ring.bytes -= oldest.bytes();
            ring.begin = oldest.end;
        }
        drop(ring);
        self.moved.send_replace(());
    }

    /// There is nothing for any member up to this position.
    pub(super) fn pass(&self, plan: &ReadPlan, end: Position) {
        Self::advance(&mut self.ring.lock(), plan, end);
    }

    /// The ring goes on behind this position; members read what is before it by themselves, and find out what became of
    /// it.
    pub(super) fn restart(&self, position: Position) {
        self.ring.lock().forget(position);
        self.moved.send_replace(());
    }

    /// Moves the end. `false` if the ring was begun anew since the plan was made.
    fn advance(ring: &mut Ring, plan: &ReadPlan, end: Position) -> bool {
        if ring.end != plan.after {
            return false;
        }
        ring.end = end;
        for member in ring.members.values_mut() {
            if member.version > plan.version {
                // It joined while this was being read, maybe without its types or in another form.
                member.from = end;
            }
        }
        true
    }
}

/// A subscriber that takes part, until dropped.
pub(super) struct TailMember {
    tail: Arc<Tail>,
    id: u64,
    moved: watch::Receiver<()>,
}

impl TailMember {
    /// What lies behind a position.
    pub(super) fn find(&mut self, cursor: Position) -> Found {
        // Before looking, so that what comes in between is not missed.
        self.moved.mark_unchanged();
        let ring = self.tail.ring.lock();
        let from = ring
            .members
            .get(&self.id)
            .map_or(Position::MAX, |member| member.from);
        if cursor < ring.begin.max(from) {
            return Found::Behind;
        }
        let at = ring
            .excerpts
            .partition_point(|(excerpt, _)| excerpt.end <= cursor);
        match ring.excerpts.get(at) {
            Some((excerpt, _)) => Found::Excerpt(Arc::clone(excerpt)),
            None => Found::Nothing(ring.end.max(cursor)),
        }
    }

    /// Waits until there is more.
    pub(super) async fn moved(&mut self) {
        if self.moved.changed().await.is_err() {
            // The process is at its end.
            std::future::pending().await
        }
    }
}

impl Drop for TailMember {
    fn drop(&mut self) {
        let mut ring = self.tail.ring.lock();
        ring.members.remove(&self.id);
        if ring.members.is_empty() {
            let end = ring.end;
            ring.forget(end);
        }
        drop(ring);
        self.tail.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::excerpt::tests::excerpt;
    use super::*;

    const SENT: SchemaView = SchemaView::Sent;

    fn tail(limit: usize) -> Arc<Tail> {
        Arc::new(Tail::new(Budget::new(1_000_000), limit))
    }

    fn types(pattern: &str) -> TypePatterns {
        TypePatterns::new([pattern])
    }

    fn positions(found: Found, cursor: i64) -> Vec<i64> {
        match found {
            Found::Excerpt(excerpt) => {
                let lines = excerpt.lines_behind(Position(cursor), SENT);
                lines.map(|line| line.position.0).collect()
            }
            Found::Nothing(end) => vec![-end.0],
            Found::Behind => vec![i64::MIN],
        }
    }

    #[test]
    fn members_share_what_is_read_and_what_is_old_goes() {
        let limit = excerpt(11..=12).bytes() * 3 / 2;
        let tail = tail(limit);
        assert!(tail.plan().is_none());
        let mut first = tail.join(types("*"), SENT, Position(10));
        let plan = tail.plan().unwrap();
        assert_eq!((plan.after, plan.schema), (Position(10), SENT));
        tail.extend(&plan, excerpt(11..=12));
        let latest = SchemaView::Latest;
        let mut second = tail.join(types("a"), latest, Position(12));
        assert_eq!(positions(first.find(Position(10)), 10), [11, 12]);
        assert_eq!(positions(first.find(Position(11)), 11), [12]);
        assert_eq!(positions(second.find(Position(12)), 12), [-12]);
        // What was read before it joined may lack its types, or its form.
        assert_eq!(positions(second.find(Position(11)), 11), [i64::MIN]);
        let plan = tail.plan().unwrap();
        assert!(plan.types.is_all());
        assert_eq!(plan.schema, latest);
        tail.extend(&plan, excerpt(13..=14));
        assert_eq!(positions(second.find(Position(12)), 12), [13, 14]);
        // The bound lets the first excerpt go.
        assert_eq!(positions(first.find(Position(10)), 10), [i64::MIN]);
        assert!(tail.budget.used() > 0 && tail.budget.used() <= limit);
        drop(first);
        assert_eq!(tail.plan().unwrap().types.to_vec(), ["a"]);
        drop(second);
        assert!(tail.plan().is_none());
        assert_eq!(tail.budget.used(), 0);
    }

    #[test]
    fn who_joins_during_a_read_does_not_rely_on_it() {
        let tail = tail(1_000_000);
        let mut first = tail.join(types("a"), SENT, Position(1));
        let plan = tail.plan().unwrap();
        let mut second = tail.join(types("b"), SENT, Position(1));
        tail.extend(&plan, excerpt(2..=3));
        assert_eq!(positions(first.find(Position(1)), 1), [2, 3]);
        assert_eq!(positions(second.find(Position(1)), 1), [i64::MIN]);
        assert_eq!(positions(second.find(Position(3)), 3), [-3]);
        let plan = tail.plan().unwrap();
        assert_eq!(plan.types.to_vec(), ["a", "b"]);
        // All leave meanwhile, and one begins elsewhere.
        drop((first, second));
        let mut third = tail.join(types("c"), SENT, Position(70));
        tail.extend(&plan, excerpt(4..=5));
        assert_eq!(positions(third.find(Position(70)), 70), [-70]);
        tail.pass(&tail.plan().unwrap(), Position(80));
        assert_eq!(positions(third.find(Position(75)), 75), [-80]);
        tail.restart(Position(90));
        assert_eq!(positions(third.find(Position(80)), 80), [i64::MIN]);
    }
}
