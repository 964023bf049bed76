"""Two services and two pages behind the proxy, and what becomes of thousands of analyses."""
