//! How much memory pictures may take: each, and all that are decoded at one time.

use std::sync::{Condvar, Mutex, PoisonError};

/// Most bytes of a file, and of what is made of it. A damaged header may claim any number.
pub(super) const MAX_BYTES: u64 = 1 << 30;

/// What the error of a picture beyond the bound says.
pub(crate) const TAKES_TOO_MUCH: &str = "which take more than";

/// Checks the size of a picture of `each` bytes a pixel before memory is allocated.
pub(super) fn check_size(width: u64, height: u64, each: u64, most: u64) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("it has {width} x {height} pixels"));
    }
    match width.checked_mul(height).and_then(|n| n.checked_mul(each)) {
        Some(bytes) if bytes <= most => Ok(()),
        _ => Err(format!(
            "its header claims {width} x {height} pixels, {TAKES_TOO_MUCH} {} MiB",
            most >> 20
        )),
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
        assert!(check_size(1 << 10, 1 << 10, 3, MAX_BYTES).is_ok());
        assert!(check_size(u64::MAX, 2, 3, MAX_BYTES).is_err());
        assert!(check_size(0, 5, 3, MAX_BYTES).is_err());
    }
}
