//! What goes wrong again and again, and is said once.

/// What went wrong at the last try; nothing at first.
#[derive(Default, Debug)]
pub(super) struct Complaint(Option<String>);

impl Complaint {
    /// Notes what went wrong; whether that is something else than before.
    pub(super) fn is_news(&mut self, what: String) -> bool {
        let is_news = self.0.as_ref() != Some(&what);
        self.0 = Some(what);
        is_news
    }

    /// It went well.
    pub(super) fn settle(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_news_once_until_it_goes_well() {
        let mut complaint = Complaint::default();
        let said = |complaint: &mut Complaint, what: &str| complaint.is_news(what.to_owned());
        assert!(said(&mut complaint, "full"));
        assert!(!said(&mut complaint, "full"));
        assert!(said(&mut complaint, "gone"));
        complaint.settle();
        assert!(said(&mut complaint, "gone"));
    }
}
