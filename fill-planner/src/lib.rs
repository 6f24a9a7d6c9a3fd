//! Forecast, placement and plan: what cron runs at night
