"""What people decide about accounts and alerts, and who did what, as the catalog keeps it: a book for each."""

from __future__ import annotations

from pipeline.io.desk.alert_queue import AlertQueue
from pipeline.io.desk.audit_log import AuditLog
from pipeline.io.desk.claim_book import ClaimBook
from pipeline.io.desk.delivery_book import DeliveryBook
from pipeline.io.desk.delivery_records import DeliveryRecords
from pipeline.io.desk.exception_book import ExceptionBook
from pipeline.io.desk.topic_book import TopicBook
from pipeline.io.desk.transactions import Transaction
from pipeline.io.desk.verdict_book import VerdictBook

__all__ = ["Desk"]


class Desk:
    """The books.  `Catalog.desk` gives it.

    Attributes:
        verdicts: judgements of accounts.
        topics: how far topics of verdicts are read.
        exceptions: what is allowed, and what it suppresses.
        claims: who has taken which alert on.
        deliveries: what was sent where, for those who send.
        delivery_records: the same, for those who look after it.
        audit: who did what and when.
        queue: alerts with what people made of them.
    """

    def __init__(self, transaction: Transaction) -> None:
        self.verdicts = VerdictBook(transaction)
        self.topics = TopicBook(transaction)
        self.exceptions = ExceptionBook(transaction)
        self.claims = ClaimBook(transaction)
        self.deliveries = DeliveryBook(transaction)
        self.delivery_records = DeliveryRecords(transaction)
        self.audit = AuditLog(transaction)
        self.queue = AlertQueue(transaction)
