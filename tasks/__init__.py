"""The steps of Bookmill, one package a stage; each works as plain Python, without Prefect."""
