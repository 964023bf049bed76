"""What the page and the webhook service share; knows neither Streamlit, Flask nor OpenAI."""
