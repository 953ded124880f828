//! The prefetch that fits the size of the messages.
//!
//! RabbitMQ's prefetch counts messages, memory is bytes, and one message may have 300 bytes or a
//! megabyte. So the prefetch follows from the recent weight of messages: `broker.prefetch` while they
//! are small, one while a single message fills the bound.

/// The prefetch window of one consumer.
#[derive(Debug)]
pub struct AdaptivePrefetch {
    /// `broker.prefetch`, the widest window.
    most: u16,
    /// Bytes that all messages in hand may take.
    bytes: usize,
    /// The running mean of the weight of messages.
    mean: usize,
    /// Messages that the mean is of, between the two bounds of [`MEAN_OF`].
    mean_of: usize,
    /// The prefetch in force.
    now: u16,
    /// Messages seen since it changed.
    seen: usize,
}

/// Fewest and most messages that the mean is of. The fewest give way to what comes within a window;
/// among the most a single large message among a thousand small ones changes no window.
const MEAN_OF: (usize, usize) = (8, 256);

impl AdaptivePrefetch {
    /// A window of at most `most` messages and `bytes` bytes. The first estimate of a message's
    /// weight is `assumed` bytes.
    pub fn new(most: u16, bytes: usize, assumed: usize) -> Self {
        let mut window = Self {
            most,
            bytes,
            mean: assumed.max(1),
            mean_of: MEAN_OF.0,
            now: 1,
            seen: 0,
        };
        window.now = window.wanted();
        window
    }

    /// The prefetch in force.
    pub fn prefetch(&self) -> u16 {
        self.now
    }

    /// Whether the bytes in hand exceed the bound by so much that the messages that were delivered
    /// and not yet read must be requeued.
    pub fn overflows(&self, in_hand: usize) -> bool {
        in_hand > self.bytes.saturating_mul(2) && self.now > 1
    }

    /// Whether the bytes in hand leave room for more messages.
    pub fn has_room(&self, in_hand: usize) -> bool {
        in_hand <= self.bytes
    }

    /// Counts a message of this weight.
    pub fn saw(&mut self, weight: usize) {
        self.seen += 1;
        self.mean = if weight >= self.mean {
            self.mean + (weight - self.mean) / self.mean_of
        } else {
            self.mean - (self.mean - weight).div_ceil(self.mean_of)
        };
        self.mean_of = (self.mean_of + 1).min(MEAN_OF.1);
    }

    /// Begins the mean anew with the message that exceeded the bound.
    pub fn overflowed(&mut self, weight: usize) {
        self.mean = self.mean.max(weight);
        self.mean_of = MEAN_OF.0;
    }

    /// Whether the prefetch should change: at once when the window is twice too wide, and after a
    /// window full of messages when it is twice too narrow or could be `broker.prefetch`.
    pub fn is_off(&self) -> bool {
        let (wanted, now) = (usize::from(self.wanted()), usize::from(self.now));
        let widest = wanted > now && wanted == usize::from(self.most);
        wanted < now.div_ceil(2) || ((widest || wanted >= 2 * now) && self.seen >= now)
    }

    /// Changes the prefetch to what fits the messages seen.
    pub fn adjust(&mut self) {
        self.now = self.wanted();
        self.seen = 0;
    }

    fn wanted(&self) -> u16 {
        let fit = self.bytes / self.mean.max(1);
        u16::try_from(fit).unwrap_or(u16::MAX).clamp(1, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_make_it_wide_and_large_ones_narrow() {
        let mut window = AdaptivePrefetch::new(2_000, 16 << 20, 64 << 10);
        assert_eq!(window.prefetch(), 256);
        let mut seen = 0;
        while !window.is_off() {
            window.saw(800);
            seen += 1;
            assert!(seen <= 256, "a window of messages must be enough to see it");
        }
        window.adjust();
        for _ in 0..4_000 {
            window.saw(800);
            if window.is_off() {
                window.adjust();
            }
        }
        assert_eq!(window.prefetch(), 2_000);
        let mut large = 0;
        while !window.is_off() {
            window.saw(1 << 20);
            large += 1;
            assert!(large <= 8, "far fewer than fill the bound");
        }
        window.adjust();
        assert!(window.prefetch() < 1_000);
        window.overflowed(1 << 20);
        window.adjust();
        assert_eq!(window.prefetch(), 16);
        window.overflowed(64 << 20);
        window.adjust();
        assert_eq!(window.prefetch(), 1, "larger than the bound: one at a time");
        assert!(!window.overflows(64 << 20), "narrower is not possible");
    }

    #[test]
    fn a_rare_large_message_changes_no_window() {
        let mut window = AdaptivePrefetch::new(2_000, 16 << 20, 64 << 10);
        for _ in 0..4_000 {
            window.saw(800);
            if window.is_off() {
                window.adjust();
            }
        }
        for message in 0..10_000 {
            let large = message % 1_000 == 0;
            window.saw(if large { 1 << 20 } else { 800 });
            assert!(!window.is_off(), "{message} {window:?}");
        }
        assert_eq!(window.prefetch(), 2_000);
    }

    #[test]
    fn it_does_not_swing_over_small_differences() {
        let mut window = AdaptivePrefetch::new(500, 32 << 20, 128 << 10);
        for weight in (0..10_000).map(|n| 60_000 + (n % 7) * 10_000) {
            window.saw(weight);
            if window.is_off() {
                window.adjust();
            }
        }
        let width = window.prefetch();
        for weight in (0..10_000).map(|n| 60_000 + (n % 7) * 10_000) {
            window.saw(weight);
            assert!(!window.is_off(), "{width} {window:?}");
        }
    }

    /// 500 is less than twice 256: a rule that waits for twice the width would stop short of it.
    #[test]
    fn it_reaches_the_setting_also_where_doubling_goes_beyond_it() {
        for most in [257, 500, 511, 512, 700] {
            let mut window = AdaptivePrefetch::new(most, 32 << 20, 128 << 10);
            assert_eq!(window.prefetch(), 256);
            for _ in 0..256 {
                window.saw(800);
            }
            assert!(window.is_off(), "{most}");
            window.adjust();
            assert_eq!(window.prefetch(), most);
            assert!(!window.is_off());
        }
    }

    #[test]
    fn what_came_beyond_the_bound_goes_back() {
        let window = AdaptivePrefetch::new(500, 1_000, 10);
        assert_eq!(window.prefetch(), 100);
        assert!(!window.overflows(2_000) && window.overflows(2_001));
        assert!(window.has_room(1_000) && !window.has_room(1_001));
    }
}
