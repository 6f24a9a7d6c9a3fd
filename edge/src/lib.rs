//! The appliance: listeners, token check, request path, cache tiers, fill, reports
