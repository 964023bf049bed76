"""The headers on every answer of both processes.

Source: https://cheatsheetseries.owasp.org/cheatsheets/HTTP_Headers_Cheat_Sheet.html
"""

SECURITY_HEADERS = {
    # Nobody else's page may show ours in a frame: Streamlit sends its parent the request id.
    "Content-Security-Policy": (
        "frame-ancestors 'self'; base-uri 'self'; form-action 'self'; object-src 'none'; "
        "img-src 'self' data: blob:"  # an image in a text can't tell anybody that it was read
    ),
    "Referrer-Policy": "no-referrer",  # the address of an analysis is the right to read it
    "X-Content-Type-Options": "nosniff",
}
NO_INDEX = {"X-Robots-Tag": "noindex, nofollow"}  # what is behind a request id, or an API
