//! Common Media Client Data (CTA-5004, versions 1 and 2): read from a header or a query, bounded.
