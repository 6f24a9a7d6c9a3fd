//! What is known of paths at a hop that were waited for long: whether an answer came. Pure.
//!
//! Invariant: what is kept is bounded, however many paths hang; the newer takes an older one's place.

use crate::failing::Asked;
use std::time::Duration;

/// As many paths and folders are told apart, at most.
const PLACES: usize = 1024;
/// Who has waited for this many times the hop's median for a head waits long.
const MEDIANS: u32 = 4;
/// And for this long, at the least: a server that pauses to collect its garbage answers then.
const LONG_MIN: Duration = Duration::from_secs(1);
/// While too few answers have come to say what the hop takes for one: it may take a second for each.
const LONG_FIRST: Duration = Duration::from_secs(2);
/// For what had no answer last time, this long: what can be answered again then has time to be.
const LONG_AGAIN_MIN: Duration = Duration::from_millis(100);

/// What came of a long wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// No answer, nor one to anything like it since.
    Hangs,
    /// An answer, as of a playlist that is held until it has a segment more.
    TakesLong,
}

/// How long may be waited for a head before that is a long wait, and whether one is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    pub(crate) time: Duration,
    pub(crate) takes_long: bool,
    /// An answer after this time is one that takes long.
    late: Duration,
}

/// Paths, and folders whose paths hang.
#[derive(Debug, Default)]
pub(crate) struct Habits(Vec<Option<(u64, Habit)>>);

impl Habits {
    fn of(&self, name: u64) -> Option<Habit> {
        let (known, habit) = (*self.0.get(place(name))?)?;
        (known == name).then_some(habit)
    }

    fn set(&mut self, name: u64, habit: Option<Habit>) {
        if self.0.is_empty() {
            self.0.resize(PLACES, None);
        }
        self.0[place(name)] = habit.map(|habit| (name, habit));
    }

    /// `median`: of the hop's times to a head, if known.
    pub(crate) fn patience(&self, asked: Asked, median: Option<Duration>) -> Patience {
        let habit = self.of(asked.path()).or_else(|| self.of(asked.folder()));
        let least = match (habit, median) {
            (Some(Habit::Hangs), _) => LONG_AGAIN_MIN,
            (_, None) => LONG_FIRST,
            (_, Some(_)) => LONG_MIN,
        };
        let usual = median.unwrap_or_default() * MEDIANS;
        let takes_long = habit == Some(Habit::TakesLong);
        Patience { time: usual.max(least), takes_long, late: usual.max(LONG_MIN) }
    }

    /// A head came, for one who had this patience.
    pub(crate) fn answered(&mut self, asked: Asked, took: Duration, patience: Patience) {
        for name in [asked.path(), asked.folder()] {
            if self.of(name) == Some(Habit::Hangs) {
                self.set(name, None);
            }
        }
        if took >= patience.late {
            self.set(asked.path(), Some(Habit::TakesLong));
        }
    }

    /// None came in all the time that there is.
    pub(crate) fn unanswered(&mut self, asked: Asked) {
        for name in [asked.path(), asked.folder()] {
            self.set(name, Some(Habit::Hangs));
        }
    }

    /// None came before the place was needed.
    pub(crate) fn gave_way(&mut self, asked: Asked) {
        if self.of(asked.path()) != Some(Habit::TakesLong) {
            self.unanswered(asked);
        }
    }
}

fn place(name: u64) -> usize {
    usize::try_from(name % PLACES as u64).expect("below a small number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn asked(path: &str) -> Asked {
        Asked::of(path)
    }

    fn time(habits: &Habits, path: &str) -> u64 {
        u64::try_from(habits.patience(asked(path), Some(ms(1))).time.as_millis()).unwrap()
    }

    #[test]
    fn what_is_like_what_hangs_is_waited_for_less_until_any_of_it_is_answered() {
        let mut habits = Habits::default();
        assert_eq!(time(&habits, "/slow/1"), 1000);
        habits.unanswered(asked("/slow/1?a"));
        let all = ["/slow/1?b", "/slow/2", "/slow/", "/slow", "/slow/1/2", "/good"];
        assert_eq!(all.map(|path| time(&habits, path)), [100, 100, 100, 1000, 1000, 1000]);
        let patience = habits.patience(asked("/slow/2"), Some(ms(1)));
        habits.answered(asked("/slow/2"), ms(5), patience);
        assert_eq!(
            ["/slow/1", "/slow/2", "/slow/3"].map(|path| time(&habits, path)),
            [100, 1000, 1000]
        );
        habits.answered(asked("/slow/1"), ms(500), patience);
        assert_eq!(time(&habits, "/slow/1"), 1000);
    }

    #[test]
    fn where_all_takes_long_more_is_borne() {
        let mut habits = Habits::default();
        let time = |habits: &Habits, median| habits.patience(asked("/a"), Some(median)).time;
        assert_eq!(
            [ms(1), ms(250), ms(3000)].map(|median| time(&habits, median)),
            [ms(1000), ms(1000), ms(12_000)]
        );
        habits.unanswered(asked("/a"));
        assert_eq!([ms(1), ms(3000)].map(|median| time(&habits, median)), [ms(100), ms(12_000)]);
    }

    #[test]
    fn what_takes_long_is_known_until_no_answer_comes_at_all() {
        let mut habits = Habits::default();
        let live = asked("/live/a.m3u8");
        let patience = |habits: &Habits| habits.patience(live, Some(ms(1)));
        habits.answered(live, ms(999), patience(&habits));
        assert!(!patience(&habits).takes_long);
        habits.answered(live, ms(1000), patience(&habits));
        assert!(patience(&habits).takes_long);
        // By another query it is answered at once; it had to make way; its neighbour hangs.
        habits.answered(live, ms(1), patience(&habits));
        habits.gave_way(live);
        habits.unanswered(asked("/live/b.m3u8"));
        let late = LONG_MIN;
        assert_eq!(patience(&habits), Patience { time: LONG_MIN, takes_long: true, late });
        habits.unanswered(live);
        assert_eq!(patience(&habits), Patience { time: LONG_AGAIN_MIN, takes_long: false, late });
    }

    #[test]
    fn a_hop_of_which_little_is_known_is_borne_with() {
        let mut habits = Habits::default();
        let first = habits.patience(asked("/a"), None);
        assert_eq!((first.time, first.takes_long), (LONG_FIRST, false));
        habits.answered(asked("/a"), LONG_MIN, first);
        assert!(habits.patience(asked("/a"), None).takes_long);
        habits.unanswered(asked("/a"));
        assert_eq!(habits.patience(asked("/a"), None).time, LONG_AGAIN_MIN);
    }

    #[test]
    fn more_take_the_place_of_others() {
        let mut habits = Habits::default();
        (0..10 * PLACES).for_each(|n| habits.unanswered(asked(&format!("/{n}/{n}"))));
        assert_eq!(habits.0.len(), PLACES);
        let last = 10 * PLACES - 1;
        assert_eq!(time(&habits, &format!("/{last}/{last}")), 100);
    }
}
