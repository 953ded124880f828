//! What is known of a capture's slot and its session, for metrics, readiness and alarms.

use super::catalog::slot::{SlotState, WalStatus};
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often an alarm is repeated.
const ALARM: Duration = Duration::from_secs(60);

/// What a capture does in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureActivity {
    /// Another process may capture.
    Waiting,
    Running,
    /// It is tried again and again.
    Failing,
    /// Until it is told to begin again.
    Stopped,
}

impl CaptureActivity {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            CaptureActivity::Waiting => "waiting",
            CaptureActivity::Running => "running",
            CaptureActivity::Failing => "failing",
            CaptureActivity::Stopped => "stopped",
        }
    }
}

/// What a capture does in this process, and why if it or a snapshot does not go on; its slot, if this process has looked at it.
#[derive(Debug, Clone)]
pub struct CaptureStatus {
    pub activity: CaptureActivity,
    pub reason: Option<String>,
    pub slot: Option<SlotState>,
    /// The slot keeps more log than `max_lag`, or is about to be lost.
    pub alarm: Option<String>,
}

/// Keeps the status of a capture; clones share it.
#[derive(Clone)]
pub struct SlotWatch {
    name: String,
    /// Bytes of log that the slot may keep before the alarm.
    max_lag: u64,
    inner: Arc<Mutex<Watched>>,
    metrics: Arc<Metrics>,
}

struct Watched {
    status: CaptureStatus,
    /// Why snapshots wait, by table.
    unread: BTreeMap<String, String>,
    alarmed_at: Option<Instant>,
}

impl SlotWatch {
    pub(super) fn new(name: &str, max_lag: u64, metrics: &Arc<Metrics>) -> Self {
        let status = CaptureStatus {
            activity: CaptureActivity::Waiting,
            reason: None,
            slot: None,
            alarm: None,
        };
        let watched = Watched {
            status,
            unread: BTreeMap::new(),
            alarmed_at: None,
        };
        Self {
            name: name.to_owned(),
            max_lag,
            inner: Arc::new(Mutex::new(watched)),
            metrics: Arc::clone(metrics),
        }
    }

    /// The capture's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known now.
    pub fn status(&self) -> CaptureStatus {
        let inner = self.inner.lock();
        let mut status = inner.status.clone();
        if status.activity == CaptureActivity::Running
            && let Some((table, reason)) = inner.unread.first_key_value()
        {
            status.reason = Some(format!("the snapshot of {table} waits: {reason}"));
        }
        status
    }

    /// What is wrong, if the capture has stopped or fails, a snapshot waits, or its slot falls behind.
    pub fn trouble(&self) -> Option<String> {
        let status = self.status();
        let is_at_work = status.activity != CaptureActivity::Waiting;
        let reason = status.reason.filter(|_| is_at_work).or(status.alarm)?;
        Some(format!(
            "{} is {}: {reason}",
            self.name,
            status.activity.as_str()
        ))
    }

    pub(super) fn is_waiting(&self) {
        self.set(CaptureActivity::Waiting, None);
    }

    /// The captured server does not answer, or lets the capture wait.
    pub(super) fn waits_for(&self, what: &str) {
        self.set(CaptureActivity::Waiting, Some(what));
    }

    /// The snapshot of a table cannot go on, which the capture itself does.
    pub(super) fn snapshot_waits(&self, table: &str, reason: &str) {
        let mut inner = self.inner.lock();
        inner.unread.insert(table.to_owned(), reason.to_owned());
    }

    pub(super) fn snapshot_goes_on(&self, table: &str) {
        self.inner.lock().unread.remove(table);
    }

    pub(super) fn is_running(&self) {
        self.set(CaptureActivity::Running, None);
    }

    pub(super) fn has_failed(&self, reason: &str) {
        self.set(CaptureActivity::Failing, Some(reason));
    }

    pub(super) fn has_stopped(&self, reason: &str) {
        self.set(CaptureActivity::Stopped, Some(reason));
    }

    fn set(&self, activity: CaptureActivity, reason: Option<&str>) {
        let mut inner = self.inner.lock();
        inner.status.activity = activity;
        inner.unread.clear();
        inner.status.reason = reason.map(str::to_owned);
        drop(inner);
        self.show();
    }

    fn show(&self) {
        let activity = self.inner.lock().status.activity;
        for other in [
            CaptureActivity::Waiting,
            CaptureActivity::Running,
            CaptureActivity::Failing,
            CaptureActivity::Stopped,
        ] {
            let gauge = &self.metrics.capture_state;
            let gauge = gauge.with_label_values(&[self.name.as_str(), other.as_str()]);
            gauge.set(i64::from(activity == other));
        }
    }

    /// Takes note of the slot as it is, or that there is none to be seen.
    pub(super) fn saw(&self, slot: Option<SlotState>) {
        let alarm = slot.as_ref().and_then(|slot| self.alarm(slot));
        self.show_slot(slot.as_ref());
        let mut inner = self.inner.lock();
        if let Some(alarm) = &alarm
            && inner.alarmed_at.is_none_or(|at| at.elapsed() >= ALARM)
        {
            inner.alarmed_at = Some(Instant::now());
            tracing::error!(
                capture = self.name,
                alarm,
                "the slot of a capture falls behind"
            );
        }
        inner.status.slot = slot;
        inner.status.alarm = alarm;
    }

    fn alarm(&self, slot: &SlotState) -> Option<String> {
        let (status, kept, max_lag) = (slot.wal_status, slot.kept_bytes, self.max_lag);
        match status {
            WalStatus::Lost => Some(
                "the server has removed log that the slot had not read (wal_status lost)".to_owned(),
            ),
            WalStatus::Unreserved => Some(
                "the server is about to remove log that the slot has not read (wal_status unreserved)"
                    .to_owned(),
            ),
            WalStatus::Reserved | WalStatus::Extended if kept > max_lag => Some(format!(
                "the slot keeps {kept} bytes of log on the captured server, more than max_lag ({max_lag}); it must catch \
                 up, or the disk fills"
            )),
            WalStatus::Reserved | WalStatus::Extended => None,
        }
    }

    /// Without a slot there are no values: those of one that another process reads now would be wrong.
    fn show_slot(&self, slot: Option<&SlotState>) {
        let label = [self.name.as_str()];
        let metrics = &self.metrics;
        let gauges = [
            &metrics.capture_lag_bytes,
            &metrics.capture_kept_bytes,
            &metrics.capture_slot_safe,
        ];
        let Some(slot) = slot else {
            for gauge in gauges {
                // An error says that there is none.
                let _ = gauge.remove_label_values(&label);
            }
            return;
        };
        let is_safe = matches!(slot.wal_status, WalStatus::Reserved | WalStatus::Extended);
        let values = [slot.lag_bytes, slot.kept_bytes, u64::from(is_safe)];
        for (gauge, value) in gauges.into_iter().zip(values) {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            gauge.with_label_values(&label).set(value);
        }
    }
}
