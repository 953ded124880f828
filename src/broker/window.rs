//! How many messages a channel may have in hand.
//!
//! RabbitMQ's prefetch counts messages, memory is bytes, and one message may be 300 bytes or a
//! megabyte. So the count follows from what messages have lately weighed: many while they are small,
//! one at a time when a single one fills the bound.

/// The window of one consumer.
#[derive(Debug)]
pub struct Window {
    /// `broker.prefetch`: never more than this.
    most: u16,
    /// Bytes that all messages in hand may take.
    bytes: usize,
    /// What a message weighs: up at once, down slowly.
    typical: usize,
    /// Messages that the consumer may have in hand now.
    now: u16,
    /// Messages seen since that changed.
    seen: usize,
}

/// How much of the distance a lighter message brings the estimate down: a sixteenth, so that a few
/// dozen small messages make a window wide.
const DECAY: usize = 16;

impl Window {
    /// A window of at most `most` messages and `bytes` bytes. Until messages have been seen each is
    /// taken to weigh `assumed` bytes.
    pub fn new(most: u16, bytes: usize, assumed: usize) -> Self {
        let mut window = Self {
            most,
            bytes,
            typical: assumed.max(1),
            now: 1,
            seen: 0,
        };
        window.now = window.wanted();
        window
    }

    /// Messages that the consumer may have in hand.
    pub fn prefetch(&self) -> u16 {
        self.now
    }

    /// Whether this many bytes in hand are more than the window was meant to let in, by so much that
    /// what else is on its way must go back to the broker.
    pub fn overflows(&self, in_hand: usize) -> bool {
        in_hand > self.bytes.saturating_mul(2) && self.now > 1
    }

    /// A message of this weight came.
    pub fn saw(&mut self, weight: usize) {
        self.seen += 1;
        self.typical = if weight >= self.typical {
            weight
        } else {
            self.typical - (self.typical - weight).div_ceil(DECAY)
        };
    }

    /// Whether the consumer should be changed: at once when the window is far too wide, and when it
    /// is far too narrow after a window full of messages.
    pub fn is_off(&self) -> bool {
        let (wanted, now) = (usize::from(self.wanted()), usize::from(self.now));
        wanted < now.div_ceil(2) || (wanted >= 2 * now && self.seen >= now)
    }

    /// Takes the width that fits the messages seen.
    pub fn adjust(&mut self) {
        self.now = self.wanted();
        self.seen = 0;
    }

    fn wanted(&self) -> u16 {
        let fit = self.bytes / self.typical.max(1);
        u16::try_from(fit).unwrap_or(u16::MAX).clamp(1, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_make_it_wide_and_large_ones_narrow_at_once() {
        let mut window = Window::new(2_000, 16 << 20, 64 << 10);
        assert_eq!(window.prefetch(), 256);
        let mut seen = 0;
        while !window.is_off() {
            window.saw(800);
            seen += 1;
            assert!(seen <= 256, "a window of messages must be enough to see it");
        }
        window.adjust();
        assert_eq!(window.prefetch(), 2_000);
        window.saw(800);
        assert!(!window.is_off());
        window.saw(1 << 20);
        assert!(window.is_off());
        window.adjust();
        assert_eq!(window.prefetch(), 16);
        window.saw(64 << 20);
        window.adjust();
        assert_eq!(window.prefetch(), 1, "larger than the bound: one at a time");
        assert!(!window.overflows(64 << 20), "narrower is not possible");
    }

    #[test]
    fn it_does_not_swing_over_small_differences() {
        let mut window = Window::new(500, 32 << 20, 128 << 10);
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

    #[test]
    fn what_came_beyond_the_bound_goes_back() {
        let window = Window::new(500, 1_000, 10);
        assert_eq!(window.prefetch(), 100);
        assert!(!window.overflows(2_000) && window.overflows(2_001));
    }
}
