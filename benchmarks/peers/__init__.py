"""The same job on the queues that people use instead of QStash and a webhook."""
