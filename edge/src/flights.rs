//! One fetch, however many wait: the in-flight table.
//!
//! Invariant: a key is in the table exactly while somebody holds its [`Ticket`]; whoever waits
//! is told when it lands, or that it was lost, whatever becomes of the task that held it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use upstream::Urgency;

type Table<K, V> = Mutex<HashMap<K, (watch::Receiver<Option<V>>, Urgency)>>;

/// What is being fetched now.
pub struct Flights<K: Hash + Eq, V>(Arc<Table<K, V>>);

/// The right, and duty, to fetch a key.
pub struct Ticket<K: Hash + Eq + Clone, V> {
    key: K,
    sender: watch::Sender<Option<V>>,
    table: Arc<Table<K, V>>,
}

/// Waits for a fetch to land.
pub struct Wait<V>(watch::Receiver<Option<V>>);

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    /// An empty table.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Joins the fetch of `key`; who comes first gets the ticket, too. That one's `urgency`
    /// becomes that of the most urgent who join.
    pub fn join(&self, key: K, urgency: &Urgency) -> (Wait<V>, Option<Ticket<K, V>>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match table.entry(key) {
            Entry::Occupied(flight) => {
                let (wait, flying) = flight.get();
                flying.raise(urgency.get());
                (Wait(wait.clone()), None)
            }
            Entry::Vacant(slot) => {
                let (sender, receiver) = watch::channel(None);
                let key = slot.key().clone();
                slot.insert((receiver.clone(), urgency.clone()));
                let table = Arc::clone(&self.0);
                (Wait(receiver), Some(Ticket { key, sender, table }))
            }
        }
    }

    /// Joins the fetch of `key`, as [`Self::join`] does, if somebody fetches it already.
    pub fn joined(&self, key: &K, urgency: &Urgency) -> Option<Wait<V>> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (wait, flying) = table.get(key)?;
        flying.raise(urgency.get());
        Some(Wait(wait.clone()))
    }
}

impl<K: Hash + Eq + Clone, V> Ticket<K, V> {
    /// What it is for.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Tells all who wait. Who comes later must find the value elsewhere, or fetch again.
    pub fn land(self, value: V) {
        // First off the table: who can't use the value comes back, and is not to find it again.
        let sender = self.sender.clone();
        drop(self);
        sender.send_replace(Some(value));
    }
}

impl<K: Hash + Eq + Clone, V> Drop for Ticket<K, V> {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<V: Clone> Wait<V> {
    /// The value; none if the ticket was dropped without landing.
    pub async fn landed(mut self) -> Option<V> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_fetches_and_all_are_told() {
        let flights: Flights<u8, u8> = Flights::new();
        let (first, ticket) = flights.join(1, &Urgency::default());
        let (second, none) = flights.join(1, &Urgency::default());
        assert!(none.is_none());
        let third = flights.joined(&1, &Urgency::default()).unwrap();
        ticket.unwrap().land(7);
        for wait in [first, second, third] {
            assert_eq!(wait.landed().await, Some(7));
        }
        assert!(flights.joined(&1, &Urgency::default()).is_none());
    }

    #[tokio::test]
    async fn a_lost_ticket_is_told_and_can_be_taken_again() {
        let flights: Flights<u8, u8> = Flights::new();
        let (wait, ticket) = flights.join(1, &Urgency::default());
        drop(ticket);
        assert_eq!(wait.landed().await, None);
        assert!(flights.join(1, &Urgency::default()).1.is_some());
    }
}
