//! Deleting what is old, slice by slice, through the queue of the one writer: batches go in between.

use super::SqliteStore;
use super::connection::SqliteFailure;
use super::follower_records;
use super::schema::{log_floor, user_interactions::dsl};
use super::{leases, run_retention};
use crate::store::StoreError;
use crate::store::commit_log::Position;
use crate::store::leases::{Fenced, Lease};
use crate::store::retention::{ExpiredRuns, RetentionStore, Seen, Slice, Unread};
use async_trait::async_trait;
use chrono::{DateTime, NaiveDate};
use diesel::prelude::*;

pub(super) const DAY_MICROS: i64 = 86_400_000_000;

/// See [`RetentionStore::trim`].
pub(super) fn trim(
    connection: &mut SqliteConnection,
    lease: &Lease,
    keep: u32,
    unread: bool,
    after: i64,
    limit: u32,
) -> Result<Fenced<Slice>, SqliteFailure> {
    if !leases::is_held(connection, lease)? {
        return Ok(Fenced::Lost);
    }
    let now = leases::now(connection)?;
    let cutoff = now.saturating_sub(i64::from(keep).saturating_mul(DAY_MICROS));
    let unread_from = match unread {
        true => i64::MAX,
        false => follower_records::least_position(connection)?.map_or(i64::MAX, |read| read.0),
    };
    let goes = |id: i64, at: i64| at < cutoff && id <= unread_from;
    let tomorrow = now.saturating_add(DAY_MICROS);
    let slice: Vec<(i64, i64)> = dsl::user_interactions
        .select((dsl::id, dsl::received_at))
        .filter(dsl::id.gt(after))
        .order(dsl::id)
        .limit(i64::from(limit))
        .load(connection)?;
    let seen = Seen {
        rows: slice.len() as u64,
        old: slice.iter().filter(|(id, at)| goes(*id, *at)).count() as u64,
        ahead: slice.iter().filter(|(_, at)| *at > tomorrow).count() as u64,
    };
    let last = slice.last().map(|(id, _)| *id);
    let next = last.filter(|_| seen.goes_on(limit));
    let Some(last) = last.filter(|_| seen.old > 0) else {
        return Ok(Fenced::Done(Slice { deleted: 0, next }));
    };
    let deleted = diesel::delete(dsl::user_interactions)
        .filter(dsl::id.gt(after))
        .filter(dsl::id.le(last.min(unread_from)))
        .filter(dsl::received_at.lt(cutoff))
        .execute(connection)?;
    let newest = slice
        .iter()
        .filter(|(id, at)| goes(*id, *at))
        .map(|(id, _)| *id);
    if let Some(newest) = newest.max() {
        follower_records::gap(connection, Position(newest))?;
        diesel::update(log_floor::table.filter(log_floor::deleted_to.lt(newest)))
            .set(log_floor::deleted_to.eq(newest))
            .execute(connection)?;
    }
    let day = DateTime::from_timestamp_micros(cutoff).and_then(|at| at.date_naive().succ_opt());
    if let Some(day) = day {
        follower_records::raise_floor(connection, day)?;
    }
    Ok(Fenced::Done(Slice {
        deleted: deleted as u64,
        next,
    }))
}

#[async_trait]
impl RetentionStore for SqliteStore {
    async fn prepare_days(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn due_days(&self, _keep: u32) -> Result<Vec<NaiveDate>, StoreError> {
        Ok(Vec::new())
    }

    async fn followers_behind(&self, _day: NaiveDate) -> Result<Unread, StoreError> {
        Ok(Unread::default())
    }

    async fn drop_day(
        &self,
        _lease: &Lease,
        _day: NaiveDate,
        _behind: &Unread,
    ) -> Result<Fenced<()>, StoreError> {
        Ok(Fenced::Done(()))
    }

    async fn trim(
        &self,
        lease: &Lease,
        keep: u32,
        unread: bool,
        after: i64,
        limit: u32,
    ) -> Result<Fenced<Slice>, StoreError> {
        let lease = lease.clone();
        self.writer
            .ask(limit as usize, move |c| {
                trim(c, &lease, keep, unread, after, limit)
            })
            .await
    }

    async fn trim_headers(
        &self,
        _lease: &Lease,
        _keep: u32,
        _after: i64,
        _limit: u32,
    ) -> Result<Fenced<Slice>, StoreError> {
        Ok(Fenced::Done(Slice {
            deleted: 0,
            next: None,
        }))
    }

    async fn expire_runs(
        &self,
        lease: &Lease,
        keep: Option<u32>,
    ) -> Result<Fenced<ExpiredRuns>, StoreError> {
        let lease = lease.clone();
        self.writer
            .ask(1, move |c| run_retention::expire(c, &lease, keep))
            .await
    }
}
