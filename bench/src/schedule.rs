//! When requests go out: each connection as soon as the last answer is there (closed loop), or at
//! fixed intervals whatever the answers do (open loop).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Shortest pause between looks at the clock.
const SHORTEST_TICK: Duration = Duration::from_micros(50);

/// Permits that stand for no turn. A taker that gets one stops, so this is the number of takers
/// that a schedule may have.
const AT_THE_END: usize = 1_000_000;

/// When the next request goes out.
#[derive(Debug)]
pub enum Pace {
    /// At once, until the time is over or enough were sent.
    Closed {
        /// Nothing is begun after this.
        until: Instant,
        /// Requests that may still be sent.
        left: AtomicU64,
    },
    /// When its turn comes.
    Open(Schedule),
}

impl Pace {
    /// Waits for the next request's turn and says when that was; `None` at the end.
    pub async fn next(&self) -> Option<Instant> {
        match self {
            Pace::Closed { until, left } => {
                let now = Instant::now();
                let one = |left: u64| left.checked_sub(1);
                let any = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one);
                (now < *until && any.is_ok()).then_some(now)
            }
            Pace::Open(schedule) => schedule.next().await,
        }
    }
}

/// Turns at fixed intervals, shared by all connections.
///
/// Who takes a turn gets the time at which it *should* have been taken. When all connections are
/// busy, turns wait, and that wait counts: a server that stalls for a second answers a second's worth
/// of requests late, not only the few that were on their way ("coordinated omission").
#[derive(Debug)]
pub struct Schedule {
    began: Instant,
    interval: Duration,
    total: u64,
    taken: AtomicU64,
    due: Semaphore,
}

impl Schedule {
    /// `rate` turns a second for `duration`, the first one at `began`.
    pub fn new(began: Instant, rate: f64, duration: Duration) -> Self {
        let total = (rate * duration.as_secs_f64()).round().max(1.0);
        Self {
            began,
            interval: Duration::from_secs_f64(1.0 / rate.max(0.001)),
            total: total as u64,
            taken: AtomicU64::new(0),
            due: Semaphore::new(0),
        }
    }

    /// The same, but no more turns than these.
    pub fn at_most(mut self, turns: u64) -> Self {
        self.total = self.total.min(turns);
        self
    }

    /// The time of a turn.
    fn turn(&self, number: u64) -> Instant {
        let nanos = self.interval.as_nanos().saturating_mul(number.into());
        let offset = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.began.checked_add(offset).unwrap_or(self.began)
    }

    async fn next(&self) -> Option<Instant> {
        // Fair: turns are given out in the order in which they were asked for. Nothing is taken
        // before this is through, so a waiter that stops loses no turn.
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        (number < self.total).then(|| self.turn(number))
    }

    /// Gives out the turns as they come due, looking at the clock after each `tick`. To run beside
    /// those that take them.
    pub async fn keep(&self, mut tick: impl AsyncFnMut() -> std::io::Result<()>) {
        let mut given = 0;
        while given < self.total {
            let elapsed = Instant::now().saturating_duration_since(self.began);
            let due = elapsed.as_nanos() / self.interval.as_nanos().max(1) + 1;
            let due = u64::try_from(due).unwrap_or(u64::MAX).min(self.total);
            if Instant::now() >= self.began && due > given {
                self.due
                    .add_permits(usize::try_from(due - given).unwrap_or(0));
                given = due;
            }
            if tick().await.is_err() {
                // Without a clock no waiter would get a turn.
                self.due.close();
                return;
            }
        }
        // For those who ask once more, to hear that there are none left.
        self.due.add_permits(AT_THE_END);
    }

    /// Keeps it with the finest clock of the system.
    ///
    /// # Errors
    /// When the system has no timer left.
    pub async fn run(&self) -> std::io::Result<()> {
        let clock = Clock::new(self.interval.max(SHORTEST_TICK))?;
        self.keep(async || clock.tick().await).await;
        Ok(())
    }
}

/// A clock that ticks at an interval. tokio's own has a resolution of a millisecond, which would be
/// most of what is to be measured; Linux's `timerfd` is as fine as the hardware.
#[cfg(target_os = "linux")]
struct Clock(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Clock {
    fn new(interval: Duration) -> std::io::Result<Self> {
        use rustix::time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
            timerfd_settime,
        };
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let every = Timespec {
            tv_sec: interval.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: interval.subsec_nanos().into(),
        };
        let timer = Itimerspec {
            it_interval: every,
            it_value: every,
        };
        timerfd_settime(&fd, TimerfdTimerFlags::empty(), &timer)?;
        #[expect(
            deprecated,
            reason = "the replacement is unsafe, for types whose descriptor may change; this one owns its own"
        )]
        let ready = tokio::io::unix::AsyncFd::new(fd)?;
        Ok(Self(ready))
    }

    async fn tick(&self) -> std::io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0; 8])?));
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
struct Clock(Duration);

#[cfg(not(target_os = "linux"))]
impl Clock {
    fn new(interval: Duration) -> std::io::Result<Self> {
        Ok(Self(interval))
    }

    async fn tick(&self) -> std::io::Result<()> {
        tokio::time::sleep(self.0).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn millisecond() -> std::io::Result<()> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_counts_for_every_request_that_had_to_wait() {
        // 100 a second for a second, one connection, 1 ms each, but the 20th takes 500 ms.
        let began = Instant::now();
        let schedule = Schedule::new(began, 100.0, Duration::from_secs(1));
        let served = async {
            let mut late = Vec::new();
            let mut number = 0;
            while let Some(turn) = schedule.next().await {
                number += 1;
                let service = if number == 20 { 500 } else { 1 };
                tokio::time::sleep(Duration::from_millis(service)).await;
                late.push((Instant::now() - turn).as_millis());
            }
            late
        };
        let (late, ()) = futures::join!(served, schedule.keep(millisecond));
        assert_eq!(late.len(), 100);
        assert!(late[..19].iter().all(|ms| *ms <= 3), "{late:?}");
        // The stall itself, then a backlog that shrinks by 9 ms with each request.
        assert!((500..=502).contains(&late[19]), "{late:?}");
        assert!((490..=493).contains(&late[20]), "{late:?}");
        assert!(late.iter().filter(|ms| **ms > 100).count() > 40, "{late:?}");
        assert!(late[99] <= 3, "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_fixed_intervals_however_many_take_them() {
        let began = Instant::now() + Duration::from_millis(50);
        let schedule = Schedule::new(began, 200.0, Duration::from_millis(500));
        let taker = async || {
            let mut turns = Vec::new();
            while let Some(turn) = schedule.next().await {
                assert!(Instant::now() >= turn);
                turns.push(turn);
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
            turns
        };
        let (mut turns, more, ()) = futures::join!(taker(), taker(), schedule.keep(millisecond));
        turns.extend(more);
        turns.sort();
        let expected: Vec<Instant> = (0..100)
            .map(|n| began + Duration::from_millis(5) * n)
            .collect();
        assert_eq!(turns, expected);
    }

    #[tokio::test]
    async fn the_finest_clock_ticks() {
        let began = Instant::now();
        let schedule = Schedule::new(began, 10_000.0, Duration::from_secs(10)).at_most(1_000);
        let taken = async {
            let mut count = 0;
            while schedule.next().await.is_some() {
                count += 1;
            }
            count
        };
        let (count, kept) = futures::join!(taken, schedule.run());
        kept.unwrap();
        assert_eq!(count, 1_000);
        assert!(Instant::now() - began >= Duration::from_millis(99));
    }
}
