//! How much memory pictures may take: each, and all that are decoded at one time.

use std::sync::{Condvar, Mutex, PoisonError};

/// Most bytes of a file, and of what is made of it. A damaged header may claim any number.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// What the caller of a decoder has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes that it takes for each pixel, beside the decoder.
    pub(crate) each: u64,
    /// Most pixels.
    pub(crate) pixels: u64,
    /// What follows the error of a picture that is too large.
    pub(crate) advice: &'static str,
}

impl Room {
    /// For so many bytes a pixel, and any number of pixels.
    pub(crate) fn of(each: u64) -> Self {
        Self {
            each,
            pixels: u64::MAX,
            advice: "",
        }
    }

    /// Bytes of a picture of this width and height, for which the decoder takes `own` bytes a pixel; checked before
    /// memory is allocated.
    pub(super) fn bytes(&self, width: u64, height: u64, own: u64) -> Result<u64, String> {
        if width == 0 || height == 0 {
            return Err(format!("it has {width} x {height} pixels"));
        }
        let advice = self.advice;
        let pixels = width.checked_mul(height);
        let bytes = pixels.and_then(|n| n.checked_mul(self.each + own));
        match (pixels, bytes) {
            (Some(pixels), _) if pixels > self.pixels => Err(format!(
                "its header claims {width} x {height} pixels; the adapter holds {} in one tensor{advice}",
                self.pixels
            )),
            (_, Some(bytes)) if bytes <= MAX_BYTES => Ok(bytes),
            _ => Err(format!(
                "its header claims {width} x {height} pixels, which take more than {} MiB{advice}",
                MAX_BYTES >> 20
            )),
        }
    }
}

/// Bytes that are given out to pictures being decoded, over all threads.
static TAKEN: Mutex<u64> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// Memory for one picture, given back on drop.
pub(super) struct Share(u64);

/// Waits until pictures that are being decoded, this one included, take [`MAX_BYTES`] or less; `bytes` is no more than
/// that. A thread holds one share at most, so that nobody waits for himself.
pub(super) fn share(bytes: u64) -> Share {
    let bytes = bytes.min(MAX_BYTES);
    let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_full = |taken: &mut u64| *taken + bytes > MAX_BYTES;
    let taken = GIVEN_BACK.wait_while(taken, is_full);
    *taken.unwrap_or_else(PoisonError::into_inner) += bytes;
    Share(bytes)
}

impl Drop for Share {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        GIVEN_BACK.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn all_threads_together_stay_within_the_bound() {
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for i in 0..8_u64 {
                let (now, most) = (&now, &most);
                scope.spawn(move || {
                    for step in 0..50 {
                        let bytes = MAX_BYTES / (2 + (i + step) % 3);
                        let _share = share(bytes);
                        let sum = now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(sum, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&most), "{most}");
    }

    #[test]
    fn sizes_are_checked_without_overflow() {
        let room = Room::of(1);
        assert_eq!(room.bytes(1 << 10, 1 << 10, 2), Ok(3 << 20));
        assert_eq!(room.bytes(1 << 14, 1 << 14, 3), Ok(MAX_BYTES));
        assert!(room.bytes((1 << 14) + 1, 1 << 14, 3).is_err());
        assert!(room.bytes(u64::MAX, 2, 2).is_err());
        assert!(room.bytes(0, 5, 2).is_err());
        let room = Room {
            each: 1,
            pixels: 100,
            advice: "; smaller",
        };
        assert_eq!(room.bytes(10, 10, 0), Ok(100));
        for (width, wanted) in [(11, "holds 100"), (u64::MAX, "more than 1024 MiB")] {
            let text = room.bytes(width, 10, 0).unwrap_err();
            assert!(
                text.contains(wanted) && text.ends_with("; smaller"),
                "{text}"
            );
        }
    }
}
