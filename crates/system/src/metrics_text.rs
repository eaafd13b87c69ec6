//! The format of metrics: OpenMetrics, or Prometheus' own text format 0.0.4 for readers that do not ask for it, such as `curl` and
//! `promtool check metrics`.
//!
//! The values are the same. In the older format, the family of a counter has the suffix of its sample, and there are no units,
//! no infos and no end.

/// The content type of OpenMetrics 1.0.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of Prometheus' own text format.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type and the text for a reader with this `Accept` header: OpenMetrics, unless it accepts other formats only, or just
/// any. `open_metrics`: as `prometheus-client` writes it.
pub fn negotiated(open_metrics: String, accept: Option<&str>) -> (&'static str, String) {
    match accept.is_none_or(|accept| accept.contains("application/openmetrics-text")) {
        true => (OPEN_METRICS, open_metrics),
        false => (CLASSIC, classic(&open_metrics)),
    }
}

/// Converts a text in OpenMetrics 1.0, as `prometheus-client` writes it: HELP, TYPE and UNIT of a family, then its samples.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, words)) = help.take() {
                text.extend(["# HELP ", name, suffix, " ", words, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::classic;

    #[test]
    fn families_have_the_names_of_their_samples() {
        let open = "# HELP requests Requests to the API.\n# TYPE requests counter\nrequests_total{a=\"b c\"} 1\n\
                    # HELP took_seconds How long.\n# TYPE took_seconds gauge\n# UNIT took_seconds seconds\ntook_seconds 2.5\n\
                    # HELP build Version.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";
        let text = "# HELP requests_total Requests to the API.\n# TYPE requests_total counter\nrequests_total{a=\"b c\"} 1\n\
                    # HELP took_seconds How long.\n# TYPE took_seconds gauge\ntook_seconds 2.5\n\
                    # HELP build_info Version.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n";
        assert_eq!(classic(open), text);
    }
}
