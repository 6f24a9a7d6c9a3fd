//! Ticks of one time scale and another, by way of nanoseconds.

/// Nanoseconds on the title's time line.
pub(super) type Nanos = i64;

const SECOND: i128 = 1_000_000_000;

fn round(value: i128, divisor: i128) -> i64 {
    let half = if value < 0 { -(divisor / 2) } else { divisor / 2 };
    let rounded = (value + half) / divisor;
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN / 4 } else { i64::MAX / 4 })
}

/// To the nearest.
pub(super) fn nanos(ticks: i64, timescale: u32) -> Nanos {
    round(i128::from(ticks) * SECOND, i128::from(timescale))
}

/// To the nearest.
pub(super) fn ticks(nanos: Nanos, timescale: u32) -> i64 {
    round(i128::from(nanos) * i128::from(timescale), SECOND)
}

/// Seconds as messages say them: `3.920 s`.
pub(super) fn shown(nanos: Nanos) -> String {
    let ms = round(nanos.into(), 1_000_000);
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03} s", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}

/// Frames a second as a fraction in lowest terms, from the lengths of all frames.
pub(super) fn frame_rate(durations: impl Iterator<Item = u32>, timescale: u32) -> (u32, u32) {
    let (mut frames, mut sum, mut first, mut steady) = (0u64, 0u64, 0u32, true);
    for duration in durations.filter(|duration| *duration > 0) {
        // The last frame's length is often made up: the one seen last is not compared.
        steady = steady && (frames < 2 || sum == u64::from(first) * frames);
        if frames == 0 {
            first = duration;
        }
        frames += 1;
        sum += u64::from(duration);
    }
    if frames == 0 || sum == 0 {
        return (1, 1);
    }
    if steady {
        return lowest(timescale.into(), first.into());
    }
    let mean = frames as f64 * f64::from(timescale) / sum as f64;
    let usual = [(24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (48, 1), (50, 1)];
    let fast = [(60000, 1001), (60, 1), (100, 1), (120_000, 1001), (120, 1), (15, 1), (12, 1)];
    let near = |rate: &&(u32, u32)| {
        let rate = f64::from(rate.0) / f64::from(rate.1);
        (mean / rate - 1.0).abs() < 0.0004
    };
    if let Some(rate) = usual.iter().chain(&fast).find(near) {
        return *rate;
    }
    lowest((mean * 1000.0).round().max(1.0) as u64, 1000)
}

fn lowest(top: u64, bottom: u64) -> (u32, u32) {
    let (mut a, mut b) = (top, bottom);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    let part = |value: u64| u32::try_from(value / a.max(1)).unwrap_or(u32::MAX).max(1);
    (part(top), part(bottom))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_rates_are_those_people_name() {
        let rate = |durations: &[u32], scale| frame_rate(durations.iter().copied(), scale);
        assert_eq!(rate(&[512; 50], 12800), (25, 1));
        assert_eq!(rate(&[1001; 50], 30000), (30000, 1001));
        assert_eq!(rate(&[33, 33, 34, 33, 33, 34, 33, 33, 34], 1000), (30, 1));
        assert_eq!(rate(&[42, 41, 42, 42, 42, 41, 42, 42, 41, 42], 1000), (24000, 1001));
        assert_eq!(rate(&[512, 512, 512, 3], 12800), (25, 1));
        assert_eq!(rate(&[], 1000), (1, 1));
    }

    #[test]
    fn times_are_shown_in_seconds() {
        assert_eq!(shown(3_920_000_000), "3.920 s");
        assert_eq!(shown(-40_000_000), "-0.040 s");
    }
}
