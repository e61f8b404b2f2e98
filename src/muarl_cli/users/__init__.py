"""Who plays the user: scripted agendas, language models, people."""
