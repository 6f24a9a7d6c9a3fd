//! Where segments start: at key frames that all renditions share, near multiples of the target.

use super::Error;
use super::clip::Clip;
use super::time::{self, Nanos};

/// The ends of renditions may differ by this, or by two frames if that is more.
const END_SKEW_MAX: Nanos = 100_000_000;

/// A segment may be as many times the target as this before key frames that renditions do not
/// share are called misaligned.
const STRETCH_MAX: i64 = 2;

const HINT: &str = "renditions need key frames at the same times (with ffmpeg: -g and \
    -keyint_min of one GOP length and -sc_threshold 0 for all)";

/// A sync sample before which everything is presented that is decoded before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Number in decode order.
    pub(super) sample: usize,
    /// Earliest presentation time from there on, in ticks.
    pub(super) time: i64,
}

/// All the places at which a video could be cut.
pub(super) fn cuts(clip: &Clip) -> Vec<Cut> {
    let times: Vec<i64> = clip.times().collect();
    let mut earliest_after = i64::MAX;
    let mut cuts = Vec::new();
    for (n, sample) in clip.samples.iter().enumerate().rev() {
        earliest_after = earliest_after.min(times[n]);
        if sample.sync {
            cuts.push(Cut { sample: n, time: earliest_after });
        }
    }
    cuts.reverse();
    let mut latest_before = i64::MIN;
    let mut next = 0;
    cuts.retain(|cut| {
        for time in &times[next..cut.sample] {
            latest_before = latest_before.max(*time);
        }
        next = cut.sample;
        latest_before < cut.time
    });
    cuts
}

/// A rendition as far as cutting goes.
pub(super) struct Rendition<'a> {
    pub(super) clip: &'a Clip,
    /// File and track, for messages.
    pub(super) name: String,
    /// Frames a second.
    pub(super) frame_rate: (u32, u32),
}

/// The samples with which the segments of each rendition start, and the times of these starts.
pub(super) struct Plan {
    /// By rendition, then by segment; the first is sample 0.
    pub(super) starts: Vec<Vec<usize>>,
    /// By segment.
    pub(super) times: Vec<Nanos>,
    /// When the first rendition ends.
    pub(super) end: Nanos,
}

/// Chooses the cuts.
///
/// # Errors
/// `Misaligned`, with the first times that differ.
pub(super) fn plan(renditions: &[Rendition<'_>], target_ms: u32) -> Result<Plan, Error> {
    let all: Vec<Keys> = renditions.iter().map(Keys::of).collect();
    let shared = shared(&all, renditions)?;
    let first = &all[0];
    let target = i64::from(target_ms.max(1)) * 1_000_000;
    let chosen = near_multiples(&shared, first, target);
    for (n, segment) in chosen.iter().enumerate() {
        let start = first.times[shared[*segment][0]];
        let end = chosen.get(n + 1).map_or(first.end, |next| first.times[shared[*next][0]]);
        if end - start > STRETCH_MAX * target {
            no_key_frames_between(&all, renditions, &shared, start, end)?;
        }
    }
    let starts = (0..all.len())
        .map(|r| chosen.iter().map(|cut| all[r].samples[shared[*cut][r]]).collect())
        .collect();
    let times = chosen.iter().map(|cut| first.times[shared[*cut][0]]).collect();
    Ok(Plan { starts, times, end: first.end })
}

/// The cuts of one rendition.
struct Keys {
    times: Vec<Nanos>,
    samples: Vec<usize>,
    end: Nanos,
    half_frame: Nanos,
}

impl Keys {
    fn of(rendition: &Rendition<'_>) -> Self {
        let clip = rendition.clip;
        let cuts = cuts(clip);
        let (frames, seconds) = rendition.frame_rate;
        let half_frame = 500_000_000 * i64::from(seconds) / i64::from(frames.max(1));
        Self {
            times: cuts.iter().map(|cut| clip.nanos(cut.time)).collect(),
            samples: cuts.iter().map(|cut| cut.sample).collect(),
            end: clip.nanos(clip.end()),
            half_frame,
        }
    }

    /// The cut within half a frame of `time`.
    fn at(&self, time: Nanos, within: Nanos) -> Option<usize> {
        let next = self.times.partition_point(|known| *known < time);
        let near = |n: &usize| self.times.get(*n).is_some_and(|t| (t - time).abs() <= within);
        [next, next.wrapping_sub(1)].into_iter().find(near)
    }
}

fn tolerance(a: &Keys, b: &Keys) -> Nanos {
    a.half_frame.min(b.half_frame)
}

/// The cuts that all renditions have: for each, its number in every rendition.
fn shared(all: &[Keys], renditions: &[Rendition<'_>]) -> Result<Vec<Vec<usize>>, Error> {
    let first = &all[0];
    for (keys, rendition) in all.iter().zip(renditions).skip(1) {
        let what = if (keys.times[0] - first.times[0]).abs() > tolerance(first, keys) {
            Some(("start", first.times[0], keys.times[0]))
        } else if (keys.end - first.end).abs()
            > END_SKEW_MAX.max(4 * first.half_frame.max(keys.half_frame))
        {
            Some(("end", first.end, keys.end))
        } else {
            None
        };
        if let Some((edge, a, b)) = what {
            let (a, b) = (time::shown(a), time::shown(b));
            let what = format!("they {edge} at {a} and at {b}; renditions must be of one length");
            return Err(misaligned(&renditions[0], rendition, what));
        }
    }
    let rows = first.times.iter().map(|time| {
        all.iter().map(|keys| keys.at(*time, tolerance(first, keys))).collect::<Option<Vec<_>>>()
    });
    Ok(rows.flatten().collect())
}

/// For each multiple of the target the nearest shared cut, if it is not taken already. A last
/// segment of less than a quarter of the target is left to the one before.
fn near_multiples(shared: &[Vec<usize>], first: &Keys, target: i64) -> Vec<usize> {
    let time = |n: usize| first.times[shared[n][0]];
    let mut chosen = vec![0];
    let mut last = 0;
    let mut goal = time(0) + target;
    while goal < first.end {
        let next = shared.partition_point(|cut| first.times[cut[0]] < goal);
        let before = next.saturating_sub(1);
        let nearest = if next < shared.len() && time(next) - goal < goal - time(before) {
            next
        } else {
            before
        };
        if nearest > last && first.end - time(nearest) >= target / 4 {
            chosen.push(nearest);
            last = nearest;
        }
        // Long stretches without a key frame are passed in one step.
        let passed = (time(last) - goal).max(0) / target;
        goal += target * (passed + 1);
        if next >= shared.len() && nearest <= last {
            break;
        }
    }
    chosen
}

/// A long segment is an error only where another rendition would have had a key frame in it.
fn no_key_frames_between(
    all: &[Keys],
    renditions: &[Rendition<'_>],
    shared: &[Vec<usize>],
    start: Nanos,
    end: Nanos,
) -> Result<(), Error> {
    for (r, keys) in all.iter().enumerate() {
        let first = keys.times.partition_point(|time| *time <= start + keys.half_frame);
        let inside = keys.times.iter().enumerate().skip(first);
        for (n, time) in inside.take_while(|(_, time)| **time < end - keys.half_frame) {
            if shared.binary_search_by_key(&n, |cut| cut[r]).is_ok() {
                continue;
            }
            let lacks = |o: &usize| all[*o].at(*time, tolerance(&all[*o], keys)).is_none();
            let Some(other) = (0..all.len()).find(lacks) else { continue };
            let next = all[other].times.iter().find(|t| **t > *time);
            let next = next
                .map_or("none after".to_owned(), |t| format!("the next at {}", time::shown(*t)));
            let what = format!(
                "{} has a key frame at {} where {} has none ({next}); {HINT}",
                renditions[r].name,
                time::shown(*time),
                renditions[other].name,
            );
            let (a, b) = (r.min(other), r.max(other));
            return Err(misaligned(&renditions[a], &renditions[b], what));
        }
    }
    Ok(())
}

fn misaligned(first: &Rendition<'_>, second: &Rendition<'_>, what: String) -> Error {
    Error::Misaligned { first: first.name.clone(), second: second.name.clone(), what }
}

/// The samples with which the segments of an audio track start: those nearest to the starts of
/// the video's segments; past the video's end, each target length.
pub(super) fn audio(clip: &Clip, plan: &Plan, target_ms: u32) -> Vec<usize> {
    let target = i64::from(target_ms.max(1)) * 1_000_000;
    let end = clip.nanos(clip.end());
    let after = (0..)
        .map(|n: i64| plan.end.saturating_add(n.saturating_mul(target)))
        .take_while(|time| *time < end - target / 2);
    let mut goals = plan.times.iter().skip(1).copied().chain(after).peekable();
    let mut starts = vec![0];
    let mut before: Option<Nanos> = None;
    for (n, (ticks, _)) in clip.decode_times().enumerate() {
        let now = clip.nanos(ticks);
        while let Some(goal) = goals.peek().copied().filter(|goal| *goal <= now) {
            goals.next();
            let nearest = if before.is_some_and(|b| goal - b < now - goal) { n - 1 } else { n };
            if starts.last().is_some_and(|last| nearest > *last) {
                starts.push(nearest);
            }
        }
        before = Some(now);
    }
    starts
}
