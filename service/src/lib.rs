//! What every nearcast server shares: config, logs, metrics, admin port, shutdown
